//! The order of the runs.

use super::Arm;
use super::random::Random;

/// A run of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) arm: Arm,
    /// Of the second series of the first arm, which shows how much two equal runs differ.
    pub(super) again: bool,
}

/// The rounds: each has every arm once, and the first arm once more. Over as many rounds as a round has runs, each run is in
/// each position once. The order is drawn again each time, so that drift of the machine and effects of the run before are the same
/// for all arms.
pub(super) fn rounds(arms: &[Arm], rounds: usize, seed: u64) -> Vec<Vec<Slot>> {
    let mut slots: Vec<Slot> = arms.iter().map(|&arm| Slot { arm, again: false }).collect();
    slots.extend(arms.first().map(|&arm| Slot { arm, again: true }));
    let mut random = Random::new(seed);
    let mut all = Vec::new();
    while all.len() < rounds && !slots.is_empty() {
        shuffle(&mut slots, &mut random);
        let mut shifts: Vec<usize> = (0..slots.len()).collect();
        shuffle(&mut shifts, &mut random);
        for shift in shifts {
            let mut round = slots.clone();
            round.rotate_left(shift);
            all.push(round);
        }
    }
    all.truncate(rounds);
    all
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::arms;
    use super::*;

    #[test]
    fn every_round_has_every_arm_and_the_first_one_twice() {
        for round in rounds(&arms::ALL, 7, 1) {
            let mut round = round;
            round.sort();
            assert_eq!(round.len(), 7);
            assert_eq!(round.iter().filter(|slot| slot.again).count(), 1);
            round.dedup();
            assert_eq!(round.len(), 7);
        }
    }

    #[test]
    fn each_run_is_in_each_position_equally_often() {
        let rounds = rounds(&arms::ALL, 14, 1);
        for position in 0..7 {
            for slot in &rounds[0] {
                assert_eq!(rounds.iter().filter(|round| round[position] == *slot).count(), 2, "{slot:?} at {position}");
            }
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(rounds(&arms::ALL, 9, 4), rounds(&arms::ALL, 9, 4));
        assert_ne!(rounds(&arms::ALL, 9, 4), rounds(&arms::ALL, 9, 5));
        assert!(rounds(&[], 3, 1).is_empty());
    }
}
