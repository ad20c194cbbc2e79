# Many connections over TLS at once, each with a number of its own that all its requests bear in the Host header. Settings are
# key=value words: api (http, requests, aiohttp, pycurl, pycurl_multi), host, port, ca, connections, requests; of pycurl capath, a
# folder without certificates. Fails unless each request was answered.

import sys
import threading

settings = dict(word.split("=", 1) for word in sys.argv[1:])
connections, requests_each = int(settings["connections"]), int(settings["requests"])
url = f"https://{settings['host']}:{settings['port']}/"


def name(number):
    return f"n{number}.test"


def with_http_client(number, together):
    import http.client
    import ssl

    context = ssl.create_default_context(cafile=settings["ca"])
    connection = http.client.HTTPSConnection(settings["host"], int(settings["port"]), context=context)
    connection.connect()
    together.wait()
    for _ in range(requests_each):
        connection.request("GET", "/", headers={"Host": name(number)})
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        together.wait()
    connection.close()


def with_requests(number, together):
    import requests

    with requests.Session() as session:
        session.verify = settings["ca"]
        for _ in range(requests_each):
            response = session.get(url, headers={"Host": name(number)})
            assert response.status_code == 200, response.status_code
            together.wait()


def handle(number):
    import pycurl

    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.HTTPHEADER, [f"Host: {name(number)}"])
    curl.setopt(pycurl.CAINFO, settings["ca"])
    # Each connection would read all of the system's certificates first, for two seconds.
    curl.setopt(pycurl.CAPATH, settings["capath"])
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.FAILONERROR, True)
    curl.setopt(pycurl.WRITEFUNCTION, lambda _: None)
    return curl


def with_pycurl(number, together):
    curl = handle(number)
    for _ in range(requests_each):
        curl.perform()
        together.wait()
    curl.close()


def with_pycurl_multi():
    import pycurl

    # Each keeps its connection: a name has one of its own.
    multi, left = pycurl.CurlMulti(), {}
    for number in range(connections):
        curl = handle(number)
        curl.setopt(pycurl.CONNECT_TO, [f"::{settings['host']}:{settings['port']}"])
        curl.setopt(pycurl.URL, f"https://{name(number)}:{settings['port']}/")
        # The certificate is for another name.
        curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        left[curl] = requests_each
        multi.add_handle(curl)
    while left:
        multi.perform()
        _, done, failed = multi.info_read()
        assert not failed, failed
        for curl in done:
            multi.remove_handle(curl)
            left[curl] -= 1
            if left[curl]:
                multi.add_handle(curl)
            else:
                del left[curl]
        multi.select(0.1)


def in_threads(talk):
    together, failures = threading.Barrier(connections, timeout=100), []

    def guarded(number):
        try:
            talk(number, together)
        except BaseException as failure:
            together.abort()
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def with_aiohttp():
    import asyncio
    import ssl

    import aiohttp

    context = ssl.create_default_context(cafile=settings["ca"])

    async def talk(number):
        # A session of its own has a connection of its own.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            for _ in range(requests_each):
                async with session.get(url, headers={"Host": name(number)}) as response:
                    await response.read()
                    assert response.status == 200, response.status

    async def main():
        await asyncio.gather(*map(talk, range(connections)))

    asyncio.run(main())


if settings["api"] == "aiohttp":
    with_aiohttp()
elif settings["api"] == "pycurl_multi":
    with_pycurl_multi()
else:
    in_threads({"http": with_http_client, "requests": with_requests, "pycurl": with_pycurl}[settings["api"]])
