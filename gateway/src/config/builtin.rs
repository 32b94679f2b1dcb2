//! The profiles that come with the program.
//!
//! In: `configs/profiles/*.yaml`, at build time. Out: their text. Must never fail at run time: a test checks every one.

use protocols::profile::Library;

/// File name and text of every built-in profile, by name.
pub static PROFILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

/// A library of the built-in profiles; each is read when it is asked for.
pub(super) fn library() -> Library {
    let mut library = Library::new();
    library.searched("the built-in profiles");
    for (name, text) in PROFILES {
        library.add_built_in(name, text);
    }
    library
}
