use super::*;

fn request(body: &[u8]) -> CallRequest {
    CallRequest {
        revision: Some([9; 32]),
        headers: vec![("content-type".to_owned(), Bytes::from_static(b"text/plain"))],
        path: "/a?b=c".to_owned(),
        ..CallRequest::new("hello", body.to_vec())
    }
}

fn read<T: CallMessage>(wire: &[u8], piece: usize) -> Result<T, CallMessageError> {
    let mut reader = CallReader::new();
    for chunk in wire.chunks(piece) {
        reader.push(Bytes::copy_from_slice(chunk))?;
    }
    reader.finish()
}

#[test]
fn calls_survive_any_fragmentation() {
    for body in [&b""[..], b"x", &[7u8; 5_000]] {
        let request = request(body);
        let wire = request.encode().expect("within limits").concat();
        for piece in [1, 3, 100, wire.len()] {
            assert_eq!(read(&wire, piece), Ok(request.clone()));
        }
        let reply = CallReply { status: 200, headers: Vec::new(), body: Bytes::copy_from_slice(body) };
        let wire = reply.encode().expect("within limits").concat();
        assert_eq!(read(&wire, 7), Ok(reply));
    }
}

#[test]
fn a_cut_or_longer_stream_is_refused() {
    let wire = request(b"hello").encode().expect("within limits").concat();
    for end in 0..wire.len() {
        assert!(matches!(read::<CallRequest>(&wire[..end], 11), Err(CallMessageError::Cut { .. })));
    }
    let mut longer = wire;
    longer.push(0);
    assert_eq!(read::<CallRequest>(&longer, 13), Err(CallMessageError::Trailing));
}

#[test]
fn bodies_end_at_their_cap() {
    let mut call = request(b"");
    call.body = vec![0; CALL_BODY_BYTES_MAX].into();
    assert!(call.encode().is_ok());
    call.body = vec![0; CALL_BODY_BYTES_MAX + 1].into();
    assert!(matches!(call.encode(), Err(CallMessageError::BodyTooLarge { .. })));
    // A head that declares too much is refused when it is read, before any of the body.
    let head = RequestHeadRef {
        function: "hello",
        revision: None,
        method: "GET",
        path: "/",
        headers: &Vec::new(),
        deadline_ms: 1,
        body_bytes: u32::MAX,
    };
    let wire = frame::encode(&head, CALL_HEAD_BYTES_MAX).expect("small");
    assert!(matches!(
        CallReader::<CallRequest>::new().push(wire),
        Err(CallMessageError::BodyTooLarge { .. })
    ));
}

#[test]
fn fields_that_break_their_rule_are_refused() {
    type Break = fn(&mut CallRequest);
    let breaks: [Break; 9] = [
        |call| call.function = "..".to_owned(),
        |call| call.method = "get".to_owned(),
        |call| call.method = String::new(),
        |call| call.path = "a".to_owned(),
        |call| call.path = "/a b".to_owned(),
        |call| call.deadline_ms = 0,
        |call| call.headers[0].0 = "Content-Type".to_owned(),
        |call| call.headers[0].1 = Bytes::from_static(b"a\r\nset-cookie: b"),
        |call| call.headers = vec![("a".to_owned(), Bytes::new()); 129],
    ];
    for (nth, break_it) in breaks.iter().enumerate() {
        let mut call = request(b"");
        assert!(call.encode().is_ok());
        break_it(&mut call);
        assert!(call.encode().is_err(), "break {nth}");
    }
    let reply = CallReply { status: 100, headers: Vec::new(), body: Bytes::new() };
    assert!(reply.encode().is_err());
}
