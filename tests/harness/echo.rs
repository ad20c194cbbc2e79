//! Exchanges of a byte each way, as many and as fast as can be.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::pair::Ends;

/// Serves so many connections to their ends.
pub fn answer(listener: &TcpListener, connections: usize) {
    thread::scope(|scope| {
        for _ in 0..connections {
            let (server, _) = listener.accept().expect("accept");
            scope.spawn(move || serve(server));
        }
    });
}

/// Gives back what comes, until the end.
pub fn serve(mut server: TcpStream) {
    server.set_nodelay(true).expect("no delay");
    let mut byte = [0];
    while matches!(server.read(&mut byte), Ok(1)) {
        server.write_all(&byte).expect("answer");
    }
}

/// A connection with so many exchanges, to its end.
pub fn converse(to: SocketAddr, exchanges: usize) -> Ends {
    let mut client = TcpStream::connect(to).expect("connect");
    client.set_nodelay(true).expect("no delay");
    ask(&mut client, exchanges);
    Ends::of(&client)
}

/// So many exchanges.
pub fn ask(client: &mut TcpStream, exchanges: usize) {
    for _ in 0..exchanges {
        let mut byte = [0];
        client.write_all(&byte).expect("ask");
        client.read_exact(&mut byte).expect("an answer");
    }
}
