import java.io.FilterInputStream;
import java.io.FilterOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.SocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyManagementException;
import java.security.KeyStore;
import java.security.SecureRandom;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.BiFunction;
import javax.net.ssl.*;

/**
 * A client on HttpsURLConnection (api=url) or HttpClient (api=http); other settings and the output as in client.py. Java
 * takes the name to send from the URL, so the name must resolve: -Djdk.net.hosts.file does that. connections=N opens N
 * connections (api=http: each by a new client), requests=K asks K times on each. Both resume sessions by themselves.
 */
public final class Client {
    static final Map<String, String> SETTINGS = new HashMap<>();
    static final List<Told> TOLD = new ArrayList<>();

    /** What was measured on one connection; times are of System.nanoTime. */
    static final class Told {
        long began, connected, asked, firstByte;
        volatile long hello, last, done;
        volatile SSLSession session;
        int exchanges, localPort;

        /** Bytes of the handshake are about to be sent, or have come. */
        void pass() {
            if (done != 0) return;
            last = System.nanoTime();
            if (hello == 0) hello = last;
        }

        void print(String client) {
            // Sessions keep their time of creation when they are resumed.
            boolean resumed = TOLD.stream().takeWhile(other -> other != this)
                .anyMatch(other -> other.session.getCreationTime() == session.getCreationTime());
            System.out.println(String.format(Locale.ROOT,
                "{\"client\":\"%s\",\"connect_ms\":%s,\"before_hello_ms\":%s,\"handshake_ms\":%s,\"after_ms\":%s,"
                + "\"first_byte_ms\":%s,\"version\":\"%s\",\"sni\":\"%s\",\"resumed\":%s,\"exchanges\":%d,\"local_port\":%s}",
                client, ms(began, connected), ms(connected, hello), ms(hello, last), ms(last, done), ms(asked, firstByte),
                session.getProtocol().replace("TLSv", ""), SETTINGS.get("sni"), resumed, exchanges,
                localPort == 0 ? "null" : localPort));
        }

        static String ms(long from, long to) {
            return from == 0 || to == 0 ? "null" : String.format(Locale.ROOT, "%.3f", (to - from) / 1e6);
        }
    }

    static Told last() {
        return TOLD.get(TOLD.size() - 1);
    }

    /** A plain socket that knows when it connected and first sent; TLS is laid over it. */
    static final class TimedSocket extends Socket {
        final Told told = new Told();

        @Override
        public void connect(SocketAddress to, int timeout) throws IOException {
            told.began = System.nanoTime();
            super.connect(to, timeout);
            told.connected = System.nanoTime();
            told.localPort = getLocalPort();
            TOLD.add(told);
        }

        @Override
        public OutputStream getOutputStream() throws IOException {
            return new FilterOutputStream(super.getOutputStream()) {
                @Override
                public void write(byte[] bytes, int offset, int length) throws IOException {
                    told.pass();
                    out.write(bytes, offset, length);
                }
            };
        }

        @Override
        public InputStream getInputStream() throws IOException {
            return new FilterInputStream(super.getInputStream()) {
                @Override
                public int read(byte[] bytes, int offset, int length) throws IOException {
                    int read = in.read(bytes, offset, length);
                    told.pass();
                    return read;
                }
            };
        }
    }

    /** Hands out timed sockets; HttpsURLConnection connects them and has TLS laid over. */
    static final class TimedFactory extends SSLSocketFactory {
        final SSLSocketFactory real;

        TimedFactory(SSLSocketFactory real) {
            this.real = real;
        }

        @Override
        public Socket createSocket() {
            return new TimedSocket();
        }

        @Override
        public Socket createSocket(Socket below, String host, int port, boolean close) throws IOException {
            return real.createSocket(below, host, port, close);
        }

        @Override
        public Socket createSocket(String host, int port) throws IOException {
            throw new IOException("not used");
        }

        @Override
        public Socket createSocket(String host, int port, InetAddress from, int fromPort) throws IOException {
            throw new IOException("not used");
        }

        @Override
        public Socket createSocket(InetAddress host, int port) throws IOException {
            throw new IOException("not used");
        }

        @Override
        public Socket createSocket(InetAddress host, int port, InetAddress from, int fromPort) throws IOException {
            throw new IOException("not used");
        }

        @Override
        public String[] getDefaultCipherSuites() {
            return real.getDefaultCipherSuites();
        }

        @Override
        public String[] getSupportedCipherSuites() {
            return real.getSupportedCipherSuites();
        }
    }

    /** HttpClient drives an engine: this one knows when it made its first bytes and when its handshake was done. */
    static final class TimedEngine extends SSLEngine {
        final SSLEngine real;
        final Told told = new Told();

        TimedEngine(SSLEngine real, String host, int port) {
            super(host, port);
            this.real = real;
            told.connected = System.nanoTime();
            TOLD.add(told);
        }

        SSLEngineResult look(SSLEngineResult result) {
            if (result.getHandshakeStatus() == SSLEngineResult.HandshakeStatus.FINISHED) {
                told.done = System.nanoTime();
                told.session = real.getSession();
            }
            return result;
        }

        @Override
        public SSLEngineResult wrap(ByteBuffer[] from, int offset, int length, ByteBuffer to) throws SSLException {
            SSLEngineResult result = real.wrap(from, offset, length, to);
            if (result.bytesProduced() > 0) told.pass();
            return look(result);
        }

        @Override
        public SSLEngineResult unwrap(ByteBuffer from, ByteBuffer[] to, int offset, int length) throws SSLException {
            if (from.hasRemaining()) told.pass();
            return look(real.unwrap(from, to, offset, length));
        }

        // The rest is the real engine's.
        @Override public Runnable getDelegatedTask() { return real.getDelegatedTask(); }
        @Override public void closeInbound() throws SSLException { real.closeInbound(); }
        @Override public boolean isInboundDone() { return real.isInboundDone(); }
        @Override public void closeOutbound() { real.closeOutbound(); }
        @Override public boolean isOutboundDone() { return real.isOutboundDone(); }
        @Override public String[] getSupportedCipherSuites() { return real.getSupportedCipherSuites(); }
        @Override public String[] getEnabledCipherSuites() { return real.getEnabledCipherSuites(); }
        @Override public void setEnabledCipherSuites(String[] suites) { real.setEnabledCipherSuites(suites); }
        @Override public String[] getSupportedProtocols() { return real.getSupportedProtocols(); }
        @Override public String[] getEnabledProtocols() { return real.getEnabledProtocols(); }
        @Override public void setEnabledProtocols(String[] protocols) { real.setEnabledProtocols(protocols); }
        @Override public SSLSession getSession() { return real.getSession(); }
        @Override public SSLSession getHandshakeSession() { return real.getHandshakeSession(); }
        @Override public void beginHandshake() throws SSLException { real.beginHandshake(); }
        @Override public SSLEngineResult.HandshakeStatus getHandshakeStatus() { return real.getHandshakeStatus(); }
        @Override public void setUseClientMode(boolean mode) { real.setUseClientMode(mode); }
        @Override public boolean getUseClientMode() { return real.getUseClientMode(); }
        @Override public void setNeedClientAuth(boolean need) { real.setNeedClientAuth(need); }
        @Override public boolean getNeedClientAuth() { return real.getNeedClientAuth(); }
        @Override public void setWantClientAuth(boolean want) { real.setWantClientAuth(want); }
        @Override public boolean getWantClientAuth() { return real.getWantClientAuth(); }
        @Override public void setEnableSessionCreation(boolean enable) { real.setEnableSessionCreation(enable); }
        @Override public boolean getEnableSessionCreation() { return real.getEnableSessionCreation(); }
        @Override public SSLParameters getSSLParameters() { return real.getSSLParameters(); }
        @Override public void setSSLParameters(SSLParameters parameters) { real.setSSLParameters(parameters); }
        @Override public String getApplicationProtocol() { return real.getApplicationProtocol(); }
        @Override public String getHandshakeApplicationProtocol() { return real.getHandshakeApplicationProtocol(); }
        @Override public void setHandshakeApplicationProtocolSelector(BiFunction<SSLEngine, List<String>, String> s) {
            real.setHandshakeApplicationProtocolSelector(s);
        }
        @Override public BiFunction<SSLEngine, List<String>, String> getHandshakeApplicationProtocolSelector() {
            return real.getHandshakeApplicationProtocolSelector();
        }
    }

    /** A context whose engines are timed. */
    static final class TimedContext extends SSLContext {
        TimedContext(SSLContext real) {
            super(new SSLContextSpi() {
                @Override
                protected SSLEngine engineCreateSSLEngine() {
                    throw new UnsupportedOperationException();
                }

                @Override
                protected SSLEngine engineCreateSSLEngine(String host, int port) {
                    return new TimedEngine(real.createSSLEngine(host, port), host, port);
                }

                @Override
                protected void engineInit(KeyManager[] keys, TrustManager[] trust, SecureRandom random)
                    throws KeyManagementException {
                    throw new KeyManagementException("it is");
                }

                @Override protected SSLSocketFactory engineGetSocketFactory() { return real.getSocketFactory(); }
                @Override protected SSLServerSocketFactory engineGetServerSocketFactory() {
                    return real.getServerSocketFactory();
                }
                @Override protected SSLSessionContext engineGetServerSessionContext() {
                    return real.getServerSessionContext();
                }
                @Override protected SSLSessionContext engineGetClientSessionContext() {
                    return real.getClientSessionContext();
                }
                @Override protected SSLParameters engineGetDefaultSSLParameters() {
                    return real.getDefaultSSLParameters();
                }
                @Override protected SSLParameters engineGetSupportedSSLParameters() {
                    return real.getSupportedSSLParameters();
                }
            }, real.getProvider(), real.getProtocol());
        }
    }

    static SSLContext context() throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream file = Files.newInputStream(Path.of(SETTINGS.get("ca")))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    static int number(String name, int otherwise) {
        return SETTINGS.containsKey(name) ? Integer.parseInt(SETTINGS.get(name)) : otherwise;
    }

    static void pause() throws InterruptedException {
        Thread.sleep(number("gap_ms", 0));
    }

    /** Keeps one connection alive for the requests, then lets it be closed. */
    static void byUrl(URI uri, SSLSocketFactory factory) throws Exception {
        int requests = number("requests", 1);
        for (int index = 0; index < requests; index++) {
            if (index > 0) pause();
            HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
            connection.setSSLSocketFactory(factory);
            if (index + 1 == requests) connection.setRequestProperty("Connection", "close");
            connection.connect();
            Told told = last();
            if (told.done == 0) {
                told.done = System.nanoTime();
                told.session = connection.getSSLSession().orElseThrow();
            }
            long asked = System.nanoTime();
            try (InputStream body = connection.getInputStream()) {
                if (told.asked == 0) {
                    told.asked = asked;
                    told.firstByte = System.nanoTime();
                }
                body.readAllBytes();
            }
            told.exchanges++;
        }
    }

    /** A client of its own for each connection; it is let go of with its connection open. */
    static void byHttp(URI uri, SSLContext context) throws Exception {
        HttpClient client = HttpClient.newBuilder().sslContext(context).version(HttpClient.Version.HTTP_1_1).build();
        for (int index = 0; index < number("requests", 1); index++) {
            if (index > 0) pause();
            client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofByteArray());
            last().exchanges++;
        }
    }

    public static void main(String[] words) throws Exception {
        for (String word : words) {
            String[] parts = word.split("=", 2);
            SETTINGS.put(parts[0], parts[1]);
        }
        if (SETTINGS.containsKey("version")) {
            String version = "TLSv" + SETTINGS.get("version");
            System.setProperty("jdk.tls.client.protocols", version);
            System.setProperty("https.protocols", version);
        }
        URI uri = URI.create("https://" + SETTINGS.get("sni") + ":" + SETTINGS.get("port") + "/");
        boolean byHttp = SETTINGS.get("api").equals("http");
        SSLContext context = context();
        SSLContext timed = new TimedContext(context);
        SSLSocketFactory factory = new TimedFactory(context.getSocketFactory());
        for (int index = 0; index < number("connections", 1); index++) {
            if (byHttp) byHttp(uri, timed);
            else byUrl(uri, factory);
        }
        for (Told told : TOLD) told.print(byHttp ? "java-http" : "java-url");
        System.exit(0);
    }
}
