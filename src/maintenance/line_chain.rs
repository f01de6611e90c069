//! A digest of the lines of a file, one after the other.

use sha2::{Digest, Sha256};

/// The digest of all lines so far. White space at the ends of a line does not count.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct LineChain([u8; 32]);

impl LineChain {
    /// The bytes of a mark. Two files that differ in a line have the same mark there once in four thousand million cases.
    pub(super) const MARK: usize = 4;

    /// Adds a line. Returns the mark of the line: the beginning of the digest.
    pub(super) fn push(&mut self, line: &[u8]) -> [u8; Self::MARK] {
        let digest = Sha256::new().chain_update(self.0).chain_update(line).finalize();
        self.0 = digest.into();
        let mut mark = [0; Self::MARK];
        mark.copy_from_slice(&self.0[..Self::MARK]);
        mark
    }

    /// As hexadecimal text.
    pub(super) fn to_text(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// Reads that text.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_depends_on_all_lines_before() {
        let marks = |lines: &[&str]| {
            let mut chain = LineChain::default();
            let marks: Vec<_> = lines.iter().map(|line| chain.push(line.as_bytes())).collect();
            assert_eq!(LineChain::of_text(&chain.to_text()), Some(chain));
            marks
        };
        let (all, other) = (marks(&["a", "b", "c"]), marks(&["a", "x", "c"]));
        assert_eq!(all[..2], marks(&["a", "b"]));
        assert_eq!(all[0], other[0]);
        assert!(all[1] != other[1] && all[2] != other[2]);
        assert_eq!(LineChain::of_text("ab"), None);
    }
}
