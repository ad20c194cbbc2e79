import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.HttpPost;
import org.apache.http.config.SocketConfig;
import org.apache.http.entity.ByteArrayEntity;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.util.EntityUtils;

/**
 * A service that writes to DynamoDB now and then. Arguments are words KEY=VALUE: endpoint, ca, writes, gap_ms (between
 * writes), api (url: HttpsURLConnection, whose pool cannot be configured; pool: Apache HttpClient, which keeps idle connections for
 * 60 s, with TCP keepalive). Prints a line of JSON for each write: since when, and how long it took.
 */
public final class Writes {
    static final Map<String, String> SETTINGS = new HashMap<>();
    static final byte[] BODY =
        "{\"TableName\":\"shop\",\"Item\":{\"id\":{\"S\":\"two\"}}}".getBytes(StandardCharsets.UTF_8);
    /** What a DynamoDB is asked by; this one does not check the signature. */
    static final Map<String, String> HEADERS = Map.of(
        "Content-Type", "application/x-amz-json-1.0",
        "X-Amz-Target", "DynamoDB_20120810.PutItem",
        "X-Amz-Date", "20260101T000000Z",
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x");

    /** Writes once, and reads the answer to its end. */
    interface Api {
        int write() throws IOException;
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

    /** Connections are kept for their factory: one for all. */
    static Api byUrl(URI uri, SSLContext context) {
        SSLSocketFactory factory = context.getSocketFactory();
        return () -> {
            HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
            connection.setSSLSocketFactory(factory);
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            HEADERS.forEach(connection::setRequestProperty);
            connection.getOutputStream().write(BODY);
            int status = connection.getResponseCode();
            try (InputStream body = connection.getInputStream()) {
                body.readAllBytes();
            }
            return status;
        };
    }

    static Api byPool(URI uri, SSLContext context) {
        CloseableHttpClient client = HttpClients.custom()
            .setSSLContext(context)
            .setDefaultSocketConfig(SocketConfig.custom().setSoKeepAlive(true).setTcpNoDelay(true).build())
            .evictIdleConnections(60, TimeUnit.SECONDS)
            .build();
        return () -> {
            HttpPost post = new HttpPost(uri);
            HEADERS.forEach(post::setHeader);
            post.setEntity(new ByteArrayEntity(BODY));
            try (CloseableHttpResponse response = client.execute(post)) {
                EntityUtils.consume(response.getEntity());
                return response.getStatusLine().getStatusCode();
            }
        };
    }

    public static void main(String[] words) throws Exception {
        for (String word : words) {
            String[] parts = word.split("=", 2);
            SETTINGS.put(parts[0], parts[1]);
        }
        URI uri = URI.create(SETTINGS.get("endpoint"));
        Api api = SETTINGS.get("api").equals("pool") ? byPool(uri, context()) : byUrl(uri, context());
        for (int index = 0; index < Integer.parseInt(SETTINGS.get("writes")); index++) {
            if (index > 0) Thread.sleep(Integer.parseInt(SETTINGS.get("gap_ms")));
            long began = System.nanoTime();
            int status = api.write();
            if (status != 200) throw new IOException("status " + status);
            System.out.println(String.format(Locale.ROOT, "{\"at_ms\":%.3f,\"took_ms\":%.3f}",
                began / 1e6, (System.nanoTime() - began) / 1e6));
        }
        // Its connections are closed by its end.
        System.exit(0);
    }
}
