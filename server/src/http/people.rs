//! Authors and committers, in both forms that requests may have, and as answers show them.

use std::fmt;

use govc_engine::Signature;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use super::{problem::Problem, time::Moment};

const NAME_DEFAULT: &str = "govc";
const EMAIL_DEFAULT: &str = "govc@localhost";

/// Who did something: an object, or a text such as `Ada` or `Ada <ada@example.com>`.
#[derive(Debug, Clone, ToSchema)]
#[serde(untagged)]
pub(super) enum PersonInput {
    /// A name, perhaps with an address behind it.
    Text(String),
    /// The parts.
    Parts(PersonParts),
}

/// Who did something, and when.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonParts {
    #[schema(example = "Ada")]
    name: String,
    #[schema(example = "ada@example.com")]
    email: Option<String>,
    /// RFC 3339, or what git writes; now if absent.
    #[schema(example = "2024-01-15T03:42:00+01:00")]
    date: Option<String>,
}

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct PersonInfo {
    #[schema(example = "Ada")]
    name: String,
    #[schema(example = "ada@example.com")]
    email: String,
    /// In RFC 3339, with the zone of who did it.
    #[schema(example = "2024-01-15T03:42:00+01:00")]
    date: String,
}

// By hand: serde's own reading of untagged forms tries one after the other on a copy and words each failure, which
// cost as much as the rest of a commit's JSON.
impl<'de> Deserialize<'de> for PersonInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PersonVisitor)
    }
}

struct PersonVisitor;

impl<'de> Visitor<'de> for PersonVisitor {
    type Value = PersonInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a person: a text, or an object with name, email and date")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PersonInput, E> {
        Ok(PersonInput::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, parts: A) -> Result<PersonInput, A::Error> {
        PersonParts::deserialize(MapAccessDeserializer::new(parts)).map(PersonInput::Parts)
    }
}

impl PersonInput {
    /// The signature to be written. `email` stands beside the person in the request, `now` is the date of one
    /// who gives none.
    pub(super) fn sign(&self, email: Option<&str>, now: Moment) -> Result<Signature, Problem> {
        let (name, own_email, date) = match self {
            Self::Text(text) => {
                let (name, own_email) = split(text);
                (name, own_email, None)
            }
            Self::Parts(parts) => (parts.name.as_str(), parts.email.as_deref(), parts.date.as_deref()),
        };
        let moment = date.map_or(Ok(now), Moment::parse)?;
        let email = own_email.or(email).unwrap_or(EMAIL_DEFAULT);
        Ok(Signature::new(name, email, moment.seconds, moment.offset_minutes)?)
    }
}

/// Splits `Ada <ada@example.com>`.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.trim_end().strip_suffix('>').and_then(|text| text.split_once('<')) {
        Some((name, email)) => (name, Some(email)),
        None => (text, None),
    }
}

/// The signature of a request that names nobody.
pub(super) fn nobody(email: Option<&str>, now: Moment) -> Result<Signature, Problem> {
    Ok(Signature::new(NAME_DEFAULT, email.unwrap_or(EMAIL_DEFAULT), now.seconds, now.offset_minutes)?)
}

impl From<&Signature> for PersonInfo {
    fn from(signature: &Signature) -> Self {
        let moment = Moment { seconds: signature.seconds, offset_minutes: signature.offset_minutes };
        Self { name: signature.name_lossy(), email: signature.email_lossy(), date: moment.to_text() }
    }
}

#[cfg(test)]
mod tests {
    use super::{PersonInfo, PersonInput, nobody};
    use crate::http::time::Moment;

    const NOW: Moment = Moment { seconds: 0, offset_minutes: 0 };

    #[test]
    fn both_forms_are_understood() {
        let check = |json: &str, email: Option<&str>, name: &str, expected_email: &str, date: &str| {
            let person: PersonInput = serde_json::from_str(json).expect("a person");
            let info = PersonInfo::from(&person.sign(email, NOW).expect("a signature"));
            assert_eq!(
                (info.name.as_str(), info.email.as_str(), info.date.as_str()),
                (name, expected_email, date),
                "{json}"
            );
        };
        let epoch = "1970-01-01T00:00:00+00:00";
        check(r#""Ada""#, Some("ada@x.org"), "Ada", "ada@x.org", epoch);
        check(r#""Ada <a@b>""#, None, "Ada", "a@b", epoch);
        check(r#""Ada""#, None, "Ada", "govc@localhost", epoch);
        check(r#"{"name": "Ada", "email": "a@b"}"#, Some("c@d"), "Ada", "a@b", epoch);
        check(r#"{"name": "Ada", "email": "a@b", "date": "5 +0100"}"#, None, "Ada", "a@b", "1970-01-01T01:00:05+01:00");
    }

    #[test]
    fn bad_people_are_refused() {
        let refused = |json: &str| {
            let person: PersonInput = serde_json::from_str(json).expect("a person");
            assert!(person.sign(None, NOW).is_err(), "{json}");
        };
        refused(r#""""#);
        refused(r#"{"name": "A", "email": "a>b"}"#);
        refused(r#"{"name": "A\nB", "email": "a@b"}"#);
        refused(r#"{"name": "A", "email": "a@b", "date": "soon"}"#);
        assert!(serde_json::from_str::<PersonInput>(r#"{"name": "A", "mail": "a@b"}"#).is_err());
        assert!(nobody(None, NOW).is_ok());
    }
}
