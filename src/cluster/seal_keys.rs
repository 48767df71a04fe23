//! The keys that the functions of a run seal with and open with, and how they are replaced while runs go on: S16 of
//! the scaling rules.
//!
//! A function has a list of keys. It seals with the first and opens with all. So a key is replaced in three phases:
//! everybody can open with the new one; everybody seals with it; and, once no run is under way that carries what was
//! sealed with the old one, everybody forgets that.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::RngCore as _;
use secrecy::{ExposeSecret, SecretString};

use super::names::FunctionKind;

/// The functions that seal or open.
pub const SEALING: [FunctionKind; 3] = [
    FunctionKind::Fetch,
    FunctionKind::Scale,
    FunctionKind::Terminate,
];

/// What the functions that seal have as keys at one time: each `<id>:<base64 of 32 bytes>`, or several with commas
/// between them.
pub type Phase = BTreeMap<FunctionKind, SecretString>;

/// The lists that the functions get, one after the other, until all have the one same key: a new one with `rotate`,
/// else one of those they have. At least one; just one where they agree already, or have none yet.
///
/// Whatever a rotation that was interrupted has left, at no time does anybody seal with a key that another can not
/// open with.
pub fn phases(found: &Phase, rotate: bool) -> Vec<Phase> {
    let lists: BTreeMap<FunctionKind, Vec<&str>> = found
        .iter()
        .map(|(kind, list)| (*kind, list.expose_secret().split(',').collect()))
        .collect();
    let mut known: Vec<&str> = Vec::new();
    for key in lists.values().flatten() {
        if !known.contains(key) {
            known.push(key);
        }
    }
    let kept = known.first().filter(|_| !rotate);
    let new = kept.is_none().then(new_key);
    let target = match (kept, &new) {
        (Some(kept), _) => kept,
        (None, new) => new.as_ref().map_or("", |new| new.expose_secret()),
    };
    let list = |first: &str| {
        let others = [target].into_iter().chain(known.iter().copied());
        let mut keys = vec![first];
        for key in others {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.join(",")
    };
    let phase = |of: &dyn Fn(FunctionKind) -> String| -> Phase {
        SEALING.map(|kind| (kind, of(kind).into())).into()
    };
    let last = phase(&|_| target.to_owned());
    if known.iter().all(|key| *key == target) {
        return vec![last];
    }
    let own = |kind: FunctionKind| {
        lists
            .get(&kind)
            .and_then(|keys| keys.first())
            .map_or(target, |own| own)
    };
    vec![
        phase(&|kind| list(own(kind))),
        phase(&|_| list(target)),
        last,
    ]
}

/// A new key, with a new id.
fn new_key() -> SecretString {
    let (mut id, mut key) = ([0; 4], [0; 32]);
    let mut random = rand::rng();
    random.fill_bytes(&mut id);
    random.fill_bytes(&mut key);
    let id = u32::from_be_bytes(id);
    format!("{id:08x}:{}", BASE64_STANDARD.encode(key)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::functions::seal::SealKeys;

    fn shown(phases: &[Phase]) -> Vec<Vec<String>> {
        let lists = |phase: &Phase| {
            let lists = phase.values();
            lists.map(|list| list.expose_secret().to_owned()).collect()
        };
        phases.iter().map(lists).collect()
    }

    fn found(lists: [&str; 3]) -> Phase {
        let given = SEALING.into_iter().zip(lists);
        let given = given.filter(|(_, list)| !list.is_empty());
        given.map(|(kind, list)| (kind, list.into())).collect()
    }

    #[test]
    fn without_any_there_is_one_new_one() {
        let (one, other) = (phases(&Phase::new(), false), phases(&Phase::new(), true));
        for phases in [&one, &other] {
            let shown = shown(phases);
            assert_eq!(shown.len(), 1);
            assert!(shown[0].iter().all(|key| *key == shown[0][0]));
            let (id, _) = shown[0][0].split_once(':').unwrap();
            assert_eq!(id.len(), 8);
            assert!(SealKeys::read(&shown[0][0].as_str().into()).is_ok());
        }
        assert_ne!(shown(&one), shown(&other));
    }

    #[test]
    fn the_one_they_have_is_kept_and_given_to_who_lacks_it() {
        for lists in [["a:1", "a:1", "a:1"], ["", "a:1", ""], ["a:1", "", "a:1"]] {
            assert_eq!(
                shown(&phases(&found(lists), false)),
                [["a:1", "a:1", "a:1"]]
            );
        }
    }

    #[test]
    fn a_new_one_is_known_before_it_is_used_and_used_before_the_old_one_goes() {
        let shown = shown(&phases(&found(["a:1", "a:1", "a:1"]), true));
        let new = shown[2][0].clone();
        assert_ne!(new, "a:1");
        assert_eq!(shown[0], vec![format!("a:1,{new}"); 3]);
        assert_eq!(shown[1], vec![format!("{new},a:1"); 3]);
        assert_eq!(shown[2], vec![new; 3]);
    }

    proptest! {
        /// From whatever an interrupted rotation left, functions changed one by one: who seals is understood.
        #[test]
        fn at_no_time_does_anybody_seal_what_another_can_not_open(
            start in prop::sample::select(vec!["a:1", "a:1,b:2", "b:2,a:1", "b:2"]),
            moved in prop::collection::vec(any::<bool>(), 3),
            rotate: bool,
            order in Just(SEALING.to_vec()).prop_shuffle(),
        ) {
            // One phase of the rotation from a to b, in which only some had their turn.
            let next = match start {
                "a:1" => "a:1,b:2",
                "a:1,b:2" => "b:2,a:1",
                _ => "b:2",
            };
            let mut lists = [start; 3];
            for (list, moved) in lists.iter_mut().zip(&moved) {
                if *moved {
                    *list = next;
                }
            }
            let mut now = found(lists);
            let phases = phases(&now, rotate);
            for phase in &phases {
                for kind in &order {
                    now.insert(*kind, phase[kind].clone());
                    for writer in now.values() {
                        let seals_with = writer.expose_secret().split(',').next().unwrap();
                        for reader in now.values() {
                            prop_assert!(reader.expose_secret().split(',').any(|key| key == seals_with));
                        }
                    }
                }
            }
            let last = shown(&phases).pop().unwrap();
            prop_assert!(last.iter().all(|list| *list == last[0] && !list.contains(',')));
            if rotate {
                prop_assert!(last[0] != "a:1" && last[0] != "b:2");
            }
        }
    }
}
