//! The profiles that come with the program.
//!
//! In: `configs/profiles/*.yaml`, at build time. Out: their text. Must never fail at run time: a test checks every one.

use protocols::profile::Library;
use protocols::yaml::Complaints;

/// File name and text of every built-in profile, by name.
pub static PROFILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

/// A library of the built-in profiles.
pub(super) fn library() -> Library {
    let mut library = Library::new();
    library.searched("the built-in profiles");
    // Their mistakes are found by the tests of this room, not by the people who use them.
    let mut complaints = Complaints::new();
    for (name, text) in PROFILES {
        library.add(name, text, true, &mut complaints);
    }
    library
}
