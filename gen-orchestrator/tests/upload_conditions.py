"""What conditional requests do to a file of a caller, wherever its bytes lie."""

from concurrent.futures import ThreadPoolExecutor

from platform_process import PlatformProcess


def check_conditions(platform: PlatformProcess) -> None:
    """Upload, replace and delete one file under conditions, also many at once."""
    url, before = "/v1/files/local/uploads/shared", "Mon, 01 Jan 2001 00:00:00 GMT"

    def put(content: bytes, **headers: str) -> int:
        return platform.http.put(
            url, content=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
        ).status_code

    def etag() -> str:
        return platform.http.head(url).headers["etag"]

    assert [put(b"x", if_match='"x"'), put(b"x", if_match="*")] == [412, 412], "there is none to match"
    assert platform.http.delete(url, headers={"if-match": '"x"'}).status_code == 404
    assert [put(b"one", if_none_match="*"), put(b"two", if_none_match="*")] == [200, 412]
    first = etag()
    refused = {
        "if_match": ('"x"', f"W/{first}", "", "x"),
        "if_none_match": ("*", first, f'"x", W/{first}'),
        "if_unmodified_since": (before,),
    }
    assert [put(b"two", **{name: value}) for name, values in refused.items() for value in values] == [412] * 8
    for headers in ({"if-match": '"x"'}, {"if-none-match": "*"}, {"if-unmodified-since": before}):
        assert platform.http.delete(url, headers=headers).json()["code"] == "precondition_failed", headers
    assert platform.http.post(url, content=b"two", headers={"if-match": first}).status_code == 409
    assert platform.http.get(url).content == b"one", "nothing was changed"
    modified = platform.http.head(url).headers["last-modified"]
    assert put(b"two", if_match=f'"x", {first}', if_unmodified_since=before) == 200, "a date does not count beside If-Match"
    assert [put(b"three", if_match=first), put(b"three", if_none_match=first)] == [412, 200]
    assert [put(b"four", if_match="*"), put(b"five", if_unmodified_since="when I was young")] == [200, 200]
    assert [platform.http.get(url, headers={"if-none-match": etag()}).status_code, modified[-3:]] == [304, "GMT"]

    with ThreadPoolExecutor(8) as threads:  # all have read the same version
        seen = etag()
        statuses = list(threads.map(lambda number: put(b"%d" % number, if_match=seen), range(16)))
    assert sorted(statuses) == [200] + [412] * 15
    assert platform.http.get(url).content == b"%d" % statuses.index(200)
    assert platform.http.delete(url, headers={"if-match": etag()}).status_code == 200
    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(lambda number: put(b"x", if_none_match="*"), range(16))) == [200] + [412] * 15
    assert platform.http.delete(url, headers={"if-unmodified-since": platform.http.head(url).headers["last-modified"]}).status_code == 200
