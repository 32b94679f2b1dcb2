//! Passwords: checked against argon2id hashes, away from the tasks that move messages.
//!
//! In: a password and a hash in PHC form. Out: yes or no. Must never hold a password, nor let a flood of logins take the
//! processor.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::Semaphore;

/// Hashes reckoned at one time; each takes some 20 MB and tens of milliseconds. More logins wait.
const AT_ONE_TIME: usize = 2;
/// Logins remembered as good, so that a hundred clients that come back at once need not be reckoned again.
const REMEMBERED_MAX: usize = 256;
/// What an unknown user's password is compared with, so that it takes as long as a known one's.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$dGlkZWdhdGV0aWRlZ2F0ZQ$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo";

/// See the module.
pub(super) struct Passwords {
    permits: Semaphore,
    keys: [RandomState; 2],
    /// Hash → keyed digest of the password that fits it.
    good: Mutex<HashMap<String, [u64; 2]>>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            permits: Semaphore::new(AT_ONE_TIME),
            keys: [RandomState::new(), RandomState::new()],
            good: Mutex::default(),
        }
    }

    /// Whether the password fits the hash; `None` for an unknown user, which never fits.
    pub(super) async fn fits(&self, hash: Option<&str>, password: &[u8]) -> bool {
        let digest = [self.keys[0].hash_one(password), self.keys[1].hash_one(password)];
        if let Some(hash) = hash
            && self.good.lock().unwrap_or_else(PoisonError::into_inner).get(hash) == Some(&digest)
        {
            return true;
        }
        let Ok(_permit) = self.permits.acquire().await else { return false };
        let (text, copy) = (hash.unwrap_or(NOBODY).to_owned(), password.to_vec());
        let fits = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&text).is_ok_and(|hash| Argon2::default().verify_password(&copy, &hash).is_ok())
        });
        let fits = fits.await.unwrap_or(false);
        let Some(hash) = hash.filter(|_| fits) else { return false };
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED_MAX {
            good.clear();
        }
        good.insert(hash.to_owned(), digest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_costs_as_much_as_a_known_one() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        assert!(nobody.hash.is_some_and(|hash| hash.len() == 32));
        assert_eq!(nobody.params.get_decimal("m"), Some(argon2::Params::DEFAULT_M_COST));
        assert_eq!(nobody.params.get_decimal("t"), Some(argon2::Params::DEFAULT_T_COST));
    }
}
