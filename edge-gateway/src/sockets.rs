//! The MQTT doors' sockets. They listen before anything else is opened: what a sensor sends while the spool is read back waits in
//! the system's queue, and a sensor that is refused would be away for as long as it pauses between attempts.

use caregate_host::net::{self, ListenError};
use tokio::net::TcpListener;

use crate::config::MqttEntry;

/// Of each door that the configuration names. Nobody is answered until the daemon serves them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// TCP.
    pub plain: Option<TcpListener>,
    /// TLS.
    pub tls: Option<TcpListener>,
    /// WebSocket.
    pub websocket: Option<TcpListener>,
    /// WebSocket with TLS.
    pub websocket_tls: Option<TcpListener>,
}

impl Sockets {
    /// Listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`], with the address.
    pub fn open(entry: Option<&MqttEntry>) -> Result<Self, ListenError> {
        let Some(entry) = entry else { return Ok(Self::default()) };
        let listen = |address: &Option<String>| address.as_deref().map(net::listen).transpose();
        Ok(Self {
            plain: listen(&entry.listen)?,
            tls: listen(&entry.listen_tls)?,
            websocket: listen(&entry.listen_websocket)?,
            websocket_tls: listen(&entry.listen_websocket_tls)?,
        })
    }
}
