<?php
// The same as client.py in PHP. api=curl: all at once by curl_multi; api=streams: PHP's own streams of TLS, one thread that
// holds all connections and goes round.

parse_str(implode('&', array_slice($argv, 1)), $settings);
$numbers = range(0, (int) $settings['connections'] - 1);

function fail(string $what): never
{
    fwrite(STDERR, "$what\n");
    exit(1);
}

function by_curl(array $settings, array $numbers): void
{
    $handles = [];
    foreach ($numbers as $number) {
        $handles[$number] = curl_init("https://n$number.test:{$settings['port']}/");
        curl_setopt_array($handles[$number], [
            CURLOPT_CONNECT_TO => ["::{$settings['host']}:{$settings['port']}"],
            CURLOPT_HTTPHEADER => ["Host: n$number.test"],
            CURLOPT_CAINFO => $settings['ca'],
            // The certificate is for another name.
            CURLOPT_SSL_VERIFYHOST => 0,
            CURLOPT_RETURNTRANSFER => true,
        ]);
    }
    // One pool, which keeps the connections from round to round.
    $all = curl_multi_init();
    curl_multi_setopt($all, CURLMOPT_MAXCONNECTS, count($numbers));
    for ($round = 0; $round < (int) $settings['requests']; $round++) {
        foreach ($handles as $handle) {
            curl_multi_add_handle($all, $handle);
        }
        do {
            $status = curl_multi_exec($all, $running);
            curl_multi_select($all, 1.0);
        } while ($running > 0 && $status === CURLM_OK);
        foreach ($handles as $handle) {
            $code = curl_getinfo($handle, CURLINFO_RESPONSE_CODE);
            $code === 200 || fail("status $code: " . curl_error($handle));
            curl_multi_remove_handle($all, $handle);
        }
    }
}

function by_streams(array $settings, array $numbers): void
{
    $context = stream_context_create(['ssl' => ['cafile' => $settings['ca'], 'peer_name' => 'shop.test']]);
    $address = "tls://{$settings['host']}:{$settings['port']}";
    $streams = [];
    foreach ($numbers as $number) {
        $streams[$number] = stream_socket_client($address, $code, $error, 60, STREAM_CLIENT_CONNECT, $context);
        $streams[$number] !== false || fail($error);
    }
    for ($round = 0; $round < (int) $settings['requests']; $round++) {
        foreach ($streams as $number => $stream) {
            fwrite($stream, "GET / HTTP/1.1\r\nHost: n$number.test\r\n\r\n");
        }
        foreach ($streams as $stream) {
            $first = fgets($stream);
            str_contains((string) $first, ' 200 ') || fail("answer $first");
            $length = 0;
            while (trim($line = (string) fgets($stream)) !== '') {
                sscanf(strtolower($line), 'content-length: %d', $length);
            }
            strlen((string) stream_get_contents($stream, $length)) === $length || fail('a short answer');
        }
    }
}

$settings['api'] === 'curl' ? by_curl($settings, $numbers) : by_streams($settings, $numbers);
