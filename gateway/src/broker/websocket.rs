//! MQTT over WebSocket (MQTT 5, 6): binary frames become a stream of bytes, and back.
//!
//! In: an upgraded connection. Out: something to read from and write to like TCP. Must never care where packets begin or
//! end in frames [MQTT-6.0.0-2], nor take a text frame [MQTT-6.0.0-1].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Buffers of a WebSocket, in bytes: small, for there may be many of them.
const BUFFER_BYTES: usize = 4096;

/// A WebSocket as a stream of bytes.
pub(super) struct Socket<S> {
    inner: WebSocketStream<S>,
    rest: Bytes,
}

/// Upgrades a connection; `frame_bytes` bounds a frame.
///
/// # Errors
/// When the peer does not speak WebSocket with the subprotocol `mqtt`.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S, frame_bytes: usize) -> io::Result<Socket<S>> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(BUFFER_BYTES + 2 * frame_bytes)
        .max_message_size(Some(frame_bytes))
        .max_frame_size(Some(frame_bytes));
    let inner = tokio_tungstenite::accept_hdr_async_with_config(stream, Subprotocol, Some(config)).await;
    Ok(Socket { inner: inner.map_err(io::Error::other)?, rest: Bytes::new() })
}

/// Insists on the subprotocol [MQTT-6.0.0-3, MQTT-6.0.0-4].
struct Subprotocol;

impl Callback for Subprotocol {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
        let mut offered = offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        if offered.any(|one| one.trim() == "mqtt") {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("the subprotocol mqtt is needed".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        Err(refusal)
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(broken)?;
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner).start_send(frame).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(broken)
    }
}
