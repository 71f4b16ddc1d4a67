//! A controller that says what a test tells it to, behind real TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use caregate_host::identity::Role;
use caregate_protocol::openflow::{ErrorKind, Framer, Hello, Message};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::pki::Pki;

/// The listening side.
pub(crate) struct Controller {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Controller {
    /// Listens with a certificate of this role and name.
    pub(crate) fn listen(pki: &Pki, role: Role, name: &str) -> Self {
        let config = pki.identity(role, name).server_config(&[Role::Gateway], &[]);
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), config: Arc::new(config) }
    }

    /// Where.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection, however far its handshake gets.
    pub(crate) fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let tls = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        Peer {
            stream: StreamOwned::new(tls, stream),
            framer: Framer::new(),
            bytes: Vec::new(),
            next_xid: 1000,
        }
    }

    /// The next connection, after both hellos.
    pub(crate) fn accept_switch(&self) -> Peer {
        let mut peer = self.accept();
        assert!(matches!(peer.receive(), (_, Message::Hello(_))));
        peer.send(&Message::Hello(Hello::ours()));
        peer
    }
}

/// One connection.
pub(crate) struct Peer {
    stream: StreamOwned<ServerConnection, TcpStream>,
    framer: Framer,
    bytes: Vec<u8>,
    next_xid: u32,
}

impl Peer {
    /// Sends a message under a transaction id of its own.
    pub(crate) fn send(&mut self, message: &Message) -> u32 {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.send_bytes(&message.encode(xid).unwrap());
        xid
    }

    /// Sends anything.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends as long as the switch takes it, and says how much that was.
    pub(crate) fn send_until_it_stops(&mut self, bytes: &[u8], most: usize) -> usize {
        self.stream.sock.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut sent = 0;
        while sent < most && self.stream.write_all(bytes).is_ok() {
            sent += bytes.len();
        }
        sent
    }

    /// The next message; none where the switch closed the connection.
    pub(crate) fn try_receive(&mut self) -> Option<(u32, Message)> {
        loop {
            if let Some(frame) = self.framer.next_frame().unwrap() {
                return Some(Message::decode(frame).unwrap());
            }
            let taken = self.framer.accept(&self.bytes);
            self.bytes.drain(..taken);
            if taken > 0 {
                continue;
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing was said"),
                Err(_) => return None,
            }
        }
    }

    /// The next message.
    pub(crate) fn receive(&mut self) -> (u32, Message) {
        self.try_receive().unwrap()
    }

    /// The next message that was not asked for, but for echoes.
    pub(crate) fn unasked(&mut self) -> Message {
        loop {
            match self.receive() {
                (0, message) => return message,
                (xid, Message::EchoRequest(data)) => {
                    self.send_bytes(&Message::EchoReply(data).encode(xid).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a message and gives what it is answered with.
    pub(crate) fn ask(&mut self, message: &Message) -> Message {
        let xid = self.send(message);
        loop {
            match self.receive() {
                (answered, message) if answered == xid => return message,
                // The switch's own echo, and what it says unasked.
                (xid, Message::EchoRequest(data)) => {
                    self.send_bytes(&Message::EchoReply(data).encode(xid).unwrap())
                }
                (_, Message::PortStatus(_) | Message::FlowRemoved(_) | Message::PacketIn(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a message and a barrier: the error that the message is answered with, or none.
    pub(crate) fn try_out(&mut self, message: &Message) -> Option<ErrorKind> {
        let xid = self.send(message);
        let barrier = self.send(&Message::BarrierRequest);
        let mut kind = None;
        loop {
            match self.receive() {
                (answered, Message::Error(error)) if answered == xid => kind = Some(error.kind),
                (answered, Message::BarrierReply) if answered == barrier => return kind,
                (xid, Message::EchoRequest(data)) => {
                    self.send_bytes(&Message::EchoReply(data).encode(xid).unwrap())
                }
                (_, Message::PortStatus(_) | Message::FlowRemoved(_) | Message::PacketIn(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
