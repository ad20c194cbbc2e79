import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

/**
 * A client on HttpsURLConnection (api=url) or HttpClient (api=http); other settings and the output as in client.py. Java
 * takes the name to send from the URL, so the name must resolve: -Djdk.net.hosts.file does that. connections=N opens N
 * connections (api=http: each by a new client), requests=K asks K times on each. Both resume sessions by themselves. Java says
 * neither when a handshake begins nor when it ends: wire_clock.c does.
 */
public final class Client {
    static final Map<String, String> SETTINGS = new HashMap<>();
    static final List<Told> TOLD = new ArrayList<>();

    /** What is known of one connection; times are of System.nanoTime. */
    static final class Told {
        SSLSession session;
        long asked, firstByte;
        int exchanges;

        void print(String client) {
            // Sessions keep their time of creation when they are resumed.
            boolean resumed = TOLD.stream().takeWhile(other -> other != this)
                .anyMatch(other -> other.session.getCreationTime() == session.getCreationTime());
            System.out.println(String.format(Locale.ROOT,
                "{\"client\":\"%s\",\"connect_ms\":null,\"before_hello_ms\":null,\"handshake_ms\":null,\"after_ms\":null,"
                + "\"first_byte_ms\":%.3f,\"version\":\"%s\",\"sni\":\"%s\",\"resumed\":%s,\"exchanges\":%d,\"local_port\":null}",
                client, (firstByte - asked) / 1e6, session.getProtocol().replace("TLSv", ""), SETTINGS.get("sni"), resumed,
                exchanges));
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

    /** Asks once on a connection; returns its session when the answer is read. */
    interface Api {
        SSLSession ask(Told told, boolean isLast) throws Exception;
    }

    /** Asks as often as wanted on one connection. */
    static void connection(Api api) throws Exception {
        Told told = new Told();
        int requests = number("requests", 1);
        for (int index = 0; index < requests; index++) {
            if (index > 0) Thread.sleep(number("gap_ms", 0));
            long asked = System.nanoTime();
            if (told.asked == 0) told.asked = asked;
            told.session = api.ask(told, index + 1 == requests);
            told.exchanges++;
        }
        TOLD.add(told);
    }

    /** The last request has its connection closed. Connections are kept for their factory: one for all. */
    static Api byUrl(URI uri, SSLSocketFactory factory) {
        return (told, isLast) -> {
            HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
            connection.setSSLSocketFactory(factory);
            if (isLast) connection.setRequestProperty("Connection", "close");
            connection.connect();
            SSLSession session = connection.getSSLSession().orElseThrow();
            try (InputStream body = connection.getInputStream()) {
                if (told.firstByte == 0) told.firstByte = System.nanoTime();
                body.readAllBytes();
            }
            return session;
        };
    }

    /** The client is let go of with its connection open. */
    static Api byHttp(URI uri, SSLContext context) {
        HttpClient client = HttpClient.newBuilder().sslContext(context).version(HttpClient.Version.HTTP_1_1).build();
        return (told, isLast) -> {
            HttpResponse<byte[]> response =
                client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofByteArray());
            if (told.firstByte == 0) told.firstByte = System.nanoTime();
            return response.sslSession().orElseThrow();
        };
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
        String api = SETTINGS.get("api");
        SSLContext context = context();
        SSLSocketFactory factory = context.getSocketFactory();
        for (int index = 0; index < number("connections", 1); index++) {
            connection(api.equals("http") ? byHttp(uri, context) : byUrl(uri, factory));
        }
        for (Told told : TOLD) told.print("java-" + api);
        System.exit(0);
    }
}
