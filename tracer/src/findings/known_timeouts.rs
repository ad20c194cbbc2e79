//! Idle timeouts that are somebody's default: a hint at whose they are, never a proof.

use crate::track::record::Nanos;

/// Who closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server, or what stands before it.
    Server,
}

/// A default.
pub struct Known {
    /// Seconds.
    pub seconds: u32,
    /// Whose side.
    pub side: Side,
    /// Whose it is.
    pub whose: &'static str,
    /// What sets it.
    pub setting: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

/// How far a measured timeout may be off a default. Timers that are looked at once a second or so close late, not early.
const EARLY: Nanos = 100_000_000;
const LATE: Nanos = 1_000_000_000;

const fn known(seconds: u32, side: Side, whose: &'static str, setting: &'static str, source: &'static str) -> Known {
    Known { seconds, side, whose, setting, source }
}

/// The defaults, as their documentation or source gives them.
pub const KNOWN: &[Known] = &[
    known(4, Side::Client, "undici, the fetch of Node.js", "keepAliveTimeout", "undici docs, Client"),
    known(5, Side::Client, "the JDK's HttpURLConnection", "none", "JDK source, sun.net.www.http.KeepAliveCache"),
    known(15, Side::Client, "aiohttp", "TCPConnector(keepalive_timeout)", "aiohttp docs, client reference"),
    known(
        30,
        Side::Client,
        "the JDK's HttpClient, from 20 on",
        "jdk.httpclient.keepalive.timeout",
        "JDK docs, java.net.http",
    ),
    known(
        60,
        Side::Client,
        ".NET's SocketsHttpHandler",
        "PooledConnectionIdleTimeout",
        ".NET docs, SocketsHttpHandler",
    ),
    known(
        60,
        Side::Client,
        "the AWS SDK for Java",
        "connectionMaxIdleTime",
        "AWS SDK for Java 2 docs, HTTP configuration",
    ),
    known(90, Side::Client, "Go's net/http", "Transport.IdleConnTimeout", "Go docs, net/http DefaultTransport"),
    known(90, Side::Client, "hyper and reqwest", "pool_idle_timeout", "reqwest docs, ClientBuilder"),
    known(300, Side::Client, "OkHttp", "ConnectionPool(keepAliveDuration)", "OkHttp docs, ConnectionPool"),
    known(2, Side::Server, "gunicorn", "--keep-alive", "gunicorn docs, settings"),
    known(5, Side::Server, "Node.js's http.Server", "server.keepAliveTimeout", "Node.js docs, http"),
    known(5, Side::Server, "Apache httpd", "KeepAliveTimeout", "httpd docs, core"),
    known(5, Side::Server, "uvicorn", "--timeout-keep-alive", "uvicorn docs, settings"),
    known(20, Side::Server, "Tomcat", "keepAliveTimeout", "Tomcat docs, HTTP connector"),
    known(30, Side::Server, "Jetty", "idleTimeout", "Jetty docs, http module"),
    known(
        60,
        Side::Server,
        "an AWS application load balancer",
        "idle_timeout.timeout_seconds",
        "AWS docs, load balancer attributes",
    ),
    known(75, Side::Server, "nginx", "keepalive_timeout", "nginx docs, ngx_http_core_module"),
    known(120, Side::Server, "IIS", "connectionTimeout", "IIS docs, limits"),
    known(130, Side::Server, "Kestrel", "Limits.KeepAliveTimeout", "ASP.NET Core docs, Kestrel"),
    known(
        240,
        Side::Server,
        "an Azure load balancer",
        "idleTimeoutInMinutes",
        "Azure docs, TCP reset and idle timeout",
    ),
    known(350, Side::Server, "an AWS network load balancer", "tcp.idle_timeout.seconds", "AWS docs, listeners"),
    known(
        600,
        Side::Server,
        "a Google Cloud load balancer",
        "keepalive timeout",
        "Google Cloud docs, HTTP keepalive timeout",
    ),
];

/// What a timeout may be the default of, for people; `None` if it is none that is known.
pub fn hint(timeout: Nanos, side: Side) -> Option<String> {
    let default = |known: &Known| Nanos::from(known.seconds) * 1_000_000_000;
    let may_be = |known: &&Known| {
        let default = default(known);
        known.side == side && timeout.saturating_add(EARLY) >= default && timeout <= default + LATE
    };
    let seconds = KNOWN.iter().filter(may_be).min_by_key(|known| timeout.abs_diff(default(known)))?.seconds;
    let is_near = |known: &&Known| known.side == side && known.seconds == seconds;
    let whose: Vec<_> = KNOWN
        .iter()
        .filter(is_near)
        .map(|known| match known.setting {
            "none" => format!("{} (it cannot be set)", known.whose),
            setting => format!("{} ({setting})", known.whose),
        })
        .collect();
    Some(format!("{seconds} s is the default of {}", whose.join(", and of ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn a_default_is_named_with_its_setting() {
        let hint = |timeout, side| super::hint(timeout, side).unwrap_or_default();
        assert!(hint(5 * S + 3_000_000, Side::Client).contains("HttpURLConnection (it cannot be set)"));
        assert!(hint(5 * S - 10_000_000, Side::Client).starts_with("5 s"), "the nearest of two that it may be");
        assert!(hint(75 * S, Side::Server).contains("nginx (keepalive_timeout)"));
        assert_eq!(hint(75 * S, Side::Client), "");
        assert_eq!(hint(45 * S, Side::Server), "");
    }

    #[test]
    fn a_timer_may_be_late_but_not_early() {
        assert!(hint(60 * S + 900_000_000, Side::Client).is_some());
        assert!(hint(59 * S, Side::Client).is_none());
    }
}
