"""Addresses and URLs in every form that has been used to bypass a check, and valid ones that must pass."""

# ruff: noqa: SIM905
import ipaddress

NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
    127.0.0.0 127.0.0.1 127.1.1.1 127.255.255.255 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 169.254.255.255
    172.16.0.0 172.16.0.1 172.31.255.255 192.0.0.0 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.192 192.0.2.1
    192.31.196.1 192.52.193.1 192.88.99.1 192.88.99.2 192.168.0.0 192.168.0.1 192.168.255.255 192.175.48.6
    198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.255 224.0.0.1 224.0.0.251 233.252.0.1 239.255.255.250 240.0.0.1 255.255.255.254
    255.255.255.255
    :: ::1 ::2 ::127.0.0.1 ::10.0.0.1 ::8.8.8.8 ::ffff ::1:0 0:0:0:0:0:0:0:1
    ::ffff:127.0.0.1 ::ffff:10.1.2.3 ::ffff:169.254.169.254 ::ffff:7f00:1 ::ffff:0.0.0.0 ::ffff:192.168.1.1 ::ffff:168.63.129.16
    0:0:0:0:0:ffff:7f00:1
    ::ffff:0:127.0.0.1 ::ffff:0:10.0.0.1 ::ffff:0:8.8.8.8 ::ffff:0:0:1
    64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::192.168.0.1
    64:ff9b:1::1 64:ff9b:1::8.8.8.8 64:ff9b:1::127.0.0.1 64:ff9b:1:7f00:0:100:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 64:ff9b:2::1 64:ff9c::1
    100::1 100:0:0:1::1 200::1 400::1 1000::1 1fff:ffff::1
    2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:0:7f00:1::1 2001:1::1 2001:1::2 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1
    2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1 2001:db8:ffff::8.8.8.8
    2002:7f00:1:: 2002:a00:1:: 2002:a9fe:a9fe::1 2002:808:808:: 2002:c0a8:101::c0a8:101
    2620:4f:8000::1 3ffe::1 3ffe:ffff::1 3fff::1 3fff:fff::1 4000::1 5f00::1 5f00:ffff::1 6000::1 8000::1 a000::1 c000::1 e000::1 f000::1
    fc00::1 fd00::1 fd00:ec2::254 fdff::1 fe00::1 fe80::1 fe80::1%eth0 fe80::5efe:10.0.0.1 febf::1 fec0::1 feff::1 ff00::1 ff02::1 ff0e::1
    2606:4700::1%eth0 2606:4700::1%1
    2606:4700::5efe:127.0.0.1 2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:192.168.0.1 2a00:1450::5efe:169.254.169.254
""".split()

PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
    169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    2000::1 2001:200::1 2001:4860:4860::8888 2001:db7::1 2001:db9::1 2003::1 2400:cb00::1 2606:4700:4700::1111 2620:4f:7fff::1
    2606:2800:220:1:248:1893:25c8:1946 2a00:1450:4001:81b::200e 2c0f::1 3ffd::1 3fff:1000::1
    ::ffff:8.8.8.8 ::ffff:808:808 64:ff9b::8.8.8.8 64:ff9b::5db8:d822 2606:4700::5efe:8.8.8.8 2606:4700::5eff:10.0.0.1
""".split()

NO_ADDRESS = ["", " ", "localhost", "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "127.0.0.1.", " 127.0.0.1", "1.1.1.1 ", "01.1.1.1", "[::1]", "::1]",
              "1.1.1.1/32", "::ffff:1.2.3", "1.2.3.4.5", "256.1.1.1", "①.1.1.1", "\u0661.1.1.1", "::%", "::g", "1.1.1.1\0", "1.1.1.1\n"]  # fmt: skip

REFUSED_HOSTS = """
    127.1 127.0.1 0177.0.0.1 0177.1 017700000001 0x7f.0.0.1 0x7f.1 0x7f000001 0X7F000001 2130706433 4294967297 00.0.0.0 0 0x 0x0
    127.0.0.01 127.0.0.1. 8.8.8.8. 8.8.8 8.8 010.8.8.8 0x8.8.8.8 8.8.8.0x8 1.2.3.4.5 256.256.256.256 1e3.1 999999999999 1.1.1.1.1. a.1 a.0x1
    ①②⑦.⓪.⓪.① ⑧.⑧.⑧.⑧ １２７.０.０.１ 127。0。0。1 8．8．8．8 8｡8｡8｡8 ⓔxample.com ｅxample.com example．com example。com ℯxample.com
    exa\u00admple.com exa\u200bmple.com exa\u200dmple.com ﬁles.example.com straße.de ExAmPle.ℂom ㎏.com ½.com \u202ecom.example
    ⓛⓞⓒⓐⓛⓗⓞⓢⓣ localhost LOCALHOST localhost. foo.localhost localhost.localdomain x.localdomain printer.local metadata.google.internal
    metadata kubernetes kubernetes.default.svc.cluster.local redis router.home.arpa nas.lan db.corp x.intranet x.onion x.alt
    %31%32%37.0.0.1 127.0.0.1%00.example.com example.com%2f example%2ecom ex%61mple.com example.com%23
    example.com. .example.com example..com . .. -example.com example-.com exam!ple.com exam*ple.com exam$ple.com exam'ple.com (example).com
    example.com, example.com; <example.com> example.com| example.com^ example.com` {example}.com "example".com exa+mple.com exa=mple.com
    exa~mple.com exa&mple.com
    [::1 ::1] [] [.] [127.0.0.1] [::1%25lo] [::1%lo] [fe80::1%25eth0] [fe80::1%eth0] [v1.x] [::ffff:127.1] [0:0:0:0:0:0:0:0:1] [::g]
    [[::1]] [2606:4700::1%25eth0] ::1 2606:4700::1111
""".split()
REFUSED_HOSTS += ["a" * 64 + ".com", ".".join(["a" * 60] * 5), "exa mple.com", "", " ", "example.com "]

REFUSED_URLS = [
    *(f"http://{host}/" for host in REFUSED_HOSTS),
    *(f"https://{host}:443/x" for host in ("localhost", "127.1", "0x7f.1", "[::1%25lo]", "⑧.⑧.⑧.⑧")),
    "", "http", "http:", "http:/", "http://", "http:///", "http:////example.com/", "http:///example.com/", "http:example.com", "http:/example.com",
    "//example.com/", "example.com", "example.com:80/", "/etc/passwd", "?x", "#x", "http://?x", "http://#x", "http://:80/", "http://@/",
    "file:///etc/passwd", "file://example.com/x", "ftp://example.com/", "gopher://example.com:80/_x", "dict://example.com/", "ldap://example.com/",
    "javascript:alert(1)", "data:text/plain,x", "jar:http://example.com!/", "unix:/run/x.sock", "http+unix://%2Frun%2Fx.sock/", "ws://example.com/",
    "view-source:http://example.com/", "url:http://example.com/", "httpx://example.com/", "ht tp://example.com/", "http ://example.com/",
    "http://user@example.com/", "http://user:pw@example.com/", "http://@example.com/", "http://:@example.com/", "http://:pw@example.com/",
    "http://example.com@127.0.0.1/", "http://example.com:80@127.0.0.1/", "http://127.0.0.1@example.com/", "http://a@b@example.com/",
    "http://example.com%40127.0.0.1/", "http://example.com&@127.0.0.1/", "http://example.com\\@127.0.0.1/", "http:\\\\example.com/",
    "http://example.com\\.evil.example/", "http://127.0.0.1\\.example.com/", "http://example.com/a\\b", "\\\\example.com\\x",
    "http://example.com\n/", "http://exam\nple.com/", "http://exam\tple.com/", "http://example.com/\r\nHost: evil", "http://example.com/a\0b",
    "\thttp://example.com/", "\nhttp://example.com/", " http://example.com/", "\u00a0http://example.com/", "\ufeffhttp://example.com/",
    "http://example.com/\x7f", "http://example.com/\x1b[31m", "http://example.com/\x85", "http://example.com/\ud800", "http://\ud800.com/",
    "http://example.com:/", "http://example.com:0/", "http://example.com:00080/", "http://example.com:080/", "http://example.com:+80/",
    "http://example.com:-80/", "http://example.com: 80/", "http://example.com:80 /", "http://example.com:٨٠/", "http://example.com:８０/",
    "http://example.com:65536/", "http://example.com:99999/", "http://example.com:8e1/", "http://example.com:0x50/", "http://example.com:80:80/",
    "http://example.com:80a/", "http://[::ffff:8.8.8.8]x/", "http://[::ffff:8.8.8.8]:/", "http://x[::ffff:8.8.8.8]/", "http://[::1]:80:80/",
    "http://example.com/" + "a" * 20_000,
]  # fmt: skip

TAKEN = {
    "http://example.com": "http://example.com/",
    "HTTP://EXAMPLE.com/A?b=C#d": "http://example.com/A?b=C",
    "https://example.com:443/x": "https://example.com/x",
    "http://example.com:443/x": "http://example.com:443/x",
    "http://example.com?x=1": "http://example.com/?x=1",
    "http://example.com#x": "http://example.com/",
    "http://example.com/a b/ä?q=ö x": "http://example.com/a%20b/%C3%A4?q=%C3%B6%20x",
    "http://example.com/%2e%2e/a%20b?x=%zz": "http://example.com/%2e%2e/a%20b?x=%zz",
    "http://example.com/@user:x": "http://example.com/@user:x",
    "http://example.com/?u=http://user@host": "http://example.com/?u=http://user@host",
    "http://bücher.example/": "http://xn--bcher-kva.example/",
    "http://xn--bcher-kva.example/": "http://xn--bcher-kva.example/",
    "http://例え.jp/": "http://xn--r8jz45g.jp/",
    "http://under_score.example.com/": "http://under_score.example.com/",
    "http://1.1.1.1/": "http://1.1.1.1/",
    "http://[2606:4700:4700:0:0:0:0:1111]:80/": "http://[2606:4700:4700::1111]/",
    "http://[::FFFF:8.8.8.8]:8080/": f"http://[{ipaddress.IPv6Address('::ffff:8.8.8.8')}]:8080/",
    "http://127.0.0.1/": "http://127.0.0.1/",  # a URL like any other: that its address is not public is found where addresses are looked at
}
