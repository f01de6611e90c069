//! A sampled stack.

/// Function names from the thread's first function to the one that was running, and how often this stack was sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) frames: Vec<String>,
    pub(super) samples: u64,
}
