//! How messages are published to nchan: requests of HTTP, on a connection that stays open.

use memchr::memmem;

/// A command as a publication to its room.
pub(super) fn publication(command: &[u8]) -> Vec<u8> {
    let key = br#""room":""#;
    let room = memmem::find(command, key).and_then(|at| command.get(at + key.len()..)).unwrap_or_default();
    let room = room.split(|byte| *byte == b'"').next().unwrap_or_default();
    let head = format!(" HTTP/1.1\r\nHost: nchan\r\nContent-Length: {}\r\n\r\n", command.len());
    [b"POST /publish/", room, head.as_bytes(), command].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_published_to_its_room() {
        let command = br#"{"type":"command","id":"@1","room":"den","data":{}}"#;
        let head = b"POST /publish/den HTTP/1.1\r\nHost: nchan\r\nContent-Length: 51\r\n\r\n";
        assert_eq!(publication(command), [&head[..], &command[..]].concat());
    }
}
