//! JSON-RPC over WebSocket, for clients that subscribe. Bounded in connections, bytes, time and in what a slow reader may leave untaken.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval_at, timeout};

use crate::rpc::{Rpc, Subscriptions};

/// WebSockets at once: controllers and feeds that follow.
pub(crate) const SOCKETS_MAX: usize = 32;
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A peer that has said nothing for so long, not even to a ping, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A peer that takes no bytes for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends; `work` bounds what runs at once.
pub(crate) async fn run(mut socket: WebSocket, rpc: Rpc, work: Arc<Semaphore>, _place: OwnedSemaphorePermit) {
    let mut heads = rpc.heads();
    let mut subscriptions = Subscriptions::default();
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut heard = Instant::now();
    loop {
        let messages = tokio::select! {
            message = socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        let serve = move |rpc: &Rpc, subscriptions: &mut Subscriptions| {
                            let answer = rpc.serve_subscriber(text.as_bytes(), subscriptions);
                            Some(String::from_utf8(answer).ok().filter(|answer| !answer.is_empty()).into_iter().collect())
                        };
                        apart(&rpc, &work, &mut subscriptions, serve).await
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Some(Vec::new()),
                    // JSON is text; anything else is no client's.
                    Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
                }
            }
            changed = heads.changed(), if !subscriptions.is_empty() => {
                if changed.is_err() {
                    return;
                }
                heads.mark_unchanged();
                let news = |rpc: &Rpc, subscriptions: &mut Subscriptions| rpc.news(subscriptions).ok();
                apart(&rpc, &work, &mut subscriptions, news).await
            }
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_MAX || !send(&mut socket, Message::Ping(Vec::new().into())).await {
                    return;
                }
                Some(Vec::new())
            }
        };
        let Some(messages) = messages else { return };
        for message in messages {
            if !send(&mut socket, Message::Text(message.into())).await {
                return;
            }
        }
    }
}

/// Runs what reads the store apart from the async tasks, when there is a place for it. None where it failed.
async fn apart(
    rpc: &Rpc,
    work: &Arc<Semaphore>,
    subscriptions: &mut Subscriptions,
    run: impl FnOnce(&Rpc, &mut Subscriptions) -> Option<Vec<String>> + Send + 'static,
) -> Option<Vec<String>> {
    let place = Arc::clone(work).acquire_owned().await.ok()?;
    let (rpc, mut taken) = (rpc.clone(), std::mem::take(subscriptions));
    let ran = tokio::task::spawn_blocking(move || {
        let messages = run(&rpc, &mut taken);
        drop(place);
        (messages, taken)
    });
    let (messages, left) = ran.await.ok()?;
    *subscriptions = left;
    messages
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE_TIMEOUT, socket.send(message)).await, Ok(Ok(())))
}
