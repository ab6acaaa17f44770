//! How ids and places look in JSON, as schemas for those who write clients in other languages.
//! Only with the feature `schema`.

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::sealed::SealedField;
use crate::{CommandId, EntityId, Epoch, MemberId, Position, Revision, UnixMillis};

/// Declares how a newtype looks on the wire.
macro_rules! wire_form {
    ($($name:ident: $kind:ident $description:literal),+ $(,)?) => {
        $(impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(SchemaType::new(Type::$kind))
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $name {})+
    };
}

wire_form! {
    EntityId: String "A room's id: 1 to 128 visible ASCII characters but / % : \" < >",
    MemberId: String "Who: a user's id, or persona:NAME or integration:NAME",
    CommandId: String "A client-made id: 1 to 128 visible ASCII characters",
    Epoch: String "Names one history of the log; raised when recorded history was cut or replaced",
    Position: String "A place in the whole log; opaque, ordered within one epoch",
    Revision: Integer "A place in a room: 0, 1, 2 and so on, without gaps",
    UnixMillis: Integer "Milliseconds since 1970-01-01T00:00:00Z",
}

/// A personal text: itself, or sealed under its subject's key.
pub struct PersonalText;

impl PartialSchema for PersonalText {
    fn schema() -> RefOr<Schema> {
        let sealed = ObjectBuilder::new()
            .property("$sealed", Ref::from_schema_name("SealedField"))
            .required("$sealed");
        OneOfBuilder::new()
            .description(Some("A text, or, sealed under its subject's key, what is left of it"))
            .item(ObjectBuilder::new().schema_type(SchemaType::new(Type::String)))
            .item(sealed)
            .into()
    }
}

impl ToSchema for PersonalText {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("SealedField".to_owned(), SealedField::schema()));
    }
}
