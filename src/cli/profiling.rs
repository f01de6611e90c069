//! The profile that a collector takes of itself, where `CATCHMENT_PROFILE` names the files to write it to.
//!
//! Collecting matters more: what prevents the profile is a line in the log.

use std::ffi::OsString;

fn asked_for() -> Option<OsString> {
    std::env::var_os("CATCHMENT_PROFILE").filter(|prefix| !prefix.is_empty())
}

#[cfg(feature = "compare")]
pub use with_profiler::Profiling;

#[cfg(feature = "compare")]
mod with_profiler {
    use std::path::PathBuf;

    use crate::compare::Profile;

    /// A profile that is being taken, if one was asked for.
    pub struct Profiling(Option<(Profile, PathBuf)>);

    impl Profiling {
        pub fn of_environment() -> Self {
            Self(super::asked_for().and_then(|prefix| match Profile::start() {
                Ok(profile) => Some((profile, prefix.into())),
                Err(error) => {
                    log::warn!("{error}");
                    None
                }
            }))
        }

        pub fn finish(self) {
            let Some((profile, prefix)) = self.0 else { return };
            match profile.finish(&prefix) {
                Ok(found) => log::info!("profile of {} samples in {}.json and .svg", found.samples, prefix.display()),
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}

/// A build without a profiler reports that there will be no profile.
#[cfg(not(feature = "compare"))]
pub struct Profiling;

#[cfg(not(feature = "compare"))]
impl Profiling {
    pub fn of_environment() -> Self {
        if asked_for().is_some() {
            log::warn!(
                "no profile: CATCHMENT_PROFILE is set, but this program was built without the feature compare, which has the profiler"
            );
        }
        Self
    }

    #[allow(clippy::unused_self, reason = "callers are the same in every build")]
    pub fn finish(self) {}
}
