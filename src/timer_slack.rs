//! Threads that do something at given times.

/// Has the system wake this thread, and those that it starts, when they want to be woken. By default Linux wakes a sleeping thread up to
/// 50 µs later, so that it wakes the processor less often: <https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html>. What is
/// measured from when an event was due would include that.
pub fn wake_on_time() {
    // Without it the thread is a little late.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_timerslack(1);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_those_that_it_starts_are_woken_on_time() {
        let slack = || nix::sys::prctl::get_timerslack().expect("supported");
        let started = std::thread::spawn(move || {
            let before = slack();
            wake_on_time();
            (before, slack(), std::thread::spawn(slack).join().expect("no panic"))
        });
        let (before, after, of_its_thread) = started.join().expect("no panic");
        assert!(before > 1);
        assert_eq!((after, of_its_thread), (1, 1));
    }
}
