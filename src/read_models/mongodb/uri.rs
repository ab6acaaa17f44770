//! Connection strings, which hold a password and are never shown.

use std::fmt;

use mongodb::options::ConnectionString;

use crate::read_models::ReadModelError;
use crate::read_models::names::unfit;

/// A connection string.
#[derive(Clone)]
pub struct MongoUri(String);

impl MongoUri {
    /// Checks its form.
    pub fn parse(uri: &str) -> Result<Self, ReadModelError> {
        match ConnectionString::parse(uri) {
            Ok(_) => Ok(Self(uri.to_owned())),
            Err(error) => {
                // Where there may be a password, the parser's words may hold a part of it.
                let got = if uri.contains('@') { "one that is not".to_owned() } else { error.to_string() };
                let expected = "mongodb://[user:password@]host[:port][,…][/][?options] or mongodb+srv://…, \
                                 with user and password percent-encoded";
                Err(unfit("the connection string", expected, &got))
            }
        }
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MongoUri(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_and_no_debug_output_shows_a_password() {
        for uri in [
            "mongodb://anna:s3cret@host:port/",
            "mongodb://anna:s3c/ret@host",
            "mongodb://anna:s3cret%@host",
            "mongo://anna:s3cret@host",
            "mongodb://anna:s3cret@host/?tls=perhaps",
        ] {
            let Err(error) = MongoUri::parse(uri) else { continue };
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3c") && !shown.contains("anna"), "{shown}");
            assert!(shown.contains("percent-encoded"), "{shown}");
        }
        let good = MongoUri::parse("mongodb://anna:s3cret@host:27017/?tls=true");
        assert!(good.is_ok_and(|good| !format!("{good:?}").contains("s3cret")));
    }
}
