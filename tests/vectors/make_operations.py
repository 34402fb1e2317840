#!/usr/bin/env python3
"""
Makes operations.json: the test vectors that store/FORMAT.md refers to.

A second implementation of the format, from its description alone: it shares no code with the
library, so that where both agree the description is likely to be complete. Nothing but Python's
standard library is needed.

    make_operations.py            writes operations.json beside this file
    make_operations.py --check    fails if the file is not what this program makes
"""
import hashlib
import json
import pathlib
import sys

CONTINUES = 1
MAX = 2**64 - 1


def blake(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def integer(n):
    if n < 0x80:
        return bytes([n])
    for head, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if n < 1 << 8 * size:
            return bytes([head]) + n.to_bytes(size, "big")
    raise ValueError(n)


def string(text):
    body = text if isinstance(text, bytes) else text.encode()
    if len(body) < 32:
        return bytes([0xA0 | len(body)]) + body
    return bytes([0xD9, len(body)]) + body if len(body) < 256 else \
        b"\xda" + len(body).to_bytes(2, "big") + body


def binary(body):
    for head, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4)):
        if len(body) < 1 << 8 * size:
            return bytes([head]) + len(body).to_bytes(size, "big") + body
    raise ValueError(len(body))


def array(count):
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def root(collection):
    return blake(collection.encode(), bytes(16))


FIELDS = ("version", "flags", "collection", "origin", "seq", "predecessor", "hlc", "document",
          "branch", "scope", "type", "payload")


def items(f):
    return [integer(f["version"]), integer(f["flags"]), string(f["collection"]),
            binary(f["origin"]), integer(f["seq"]), binary(f["predecessor"]), integer(f["hlc"]),
            string(f["document"]), string(f["branch"]), string(f["scope"]), string(f["type"]),
            binary(f["payload"])]


class Operation:
    def __init__(self, name, about, trailing=(), **fields):
        self.name, self.about, self.trailing, self.fields = name, about, trailing, fields
        head = array(12 + len(trailing)) + b"".join(items(fields))
        before = head[:len(head) - len(fields["payload"])]
        after = b"".join(trailing)
        self.canonical = head + after
        self.hash = blake(blake(before, after), blake(fields["payload"]))

    def json(self):
        fields = {}
        for key in FIELDS:
            value = self.fields[key]
            fields[key] = (value.hex() if isinstance(value, bytes) else
                           str(value) if isinstance(value, int) else value)
        return {"name": self.name, "about": self.about, "fields": fields,
                "trailing": [item.hex() for item in self.trailing],
                "canonical": self.canonical.hex(), "hash": self.hash.hex()}


ORIGIN = bytes(range(0x10, 0x20))
OTHER = bytes(range(0xA0, 0xB0))


def base(**change):
    fields = dict(version=1, flags=0, collection="notes", origin=ORIGIN, seq=1,
                  predecessor=root("notes"), hlc=1700000000000 << 16, document="a", branch="main",
                  scope="global", type="kv.SET", payload=b"\x81\xa1k\x01")
    fields.update(change)
    return fields


def operations():
    first = Operation("first", "the first operation of an origin: its predecessor is the root",
                      **base())
    second = Operation("second", "follows first",
                       **base(seq=2, predecessor=first.hash, hlc=(1700000000000 << 16) + 1,
                              payload=b"\x81\xa1k\x02"))
    job1 = Operation("job-1", "the first of a job of two",
                     **base(seq=3, flags=CONTINUES, predecessor=second.hash))
    job2 = Operation("job-2", "the last of that job",
                     **base(seq=4, predecessor=job1.hash, scope="private"))
    fork = Operation("fork", "another operation at the seq of second: the origin then has two heads",
                     **base(seq=2, predecessor=first.hash, payload=b"\x81\xa1k\x03"))
    unicode = Operation("unicode", "names of two, three and four bytes a character; of 128 bytes",
                        **base(origin=OTHER, document="né " + "漢字" + " \U0001f600", branch="ü" * 64,
                               scope="\u00a0", type="a.b.c"))
    empty = Operation("empty-payload", "the payload has no body",
                      **base(origin=OTHER, seq=2, predecessor=unicode.hash, payload=b""))
    trailing = Operation("trailing-items", "items of a later minor format: kept and hashed; of "
                         "these any form is taken. Flags and version are not known either",
                         trailing=(b"\xc0", b"\xcc\x05", b"\x92\x01\xa1x", b"\x81\x01\x02"),
                         **base(version=7, flags=0x80 | 2, origin=OTHER, seq=3,
                                predecessor=empty.hash))
    largest = Operation("largest-numbers", "every number at its largest; a payload of 256 bytes",
                        **base(version=MAX, flags=MAX - 1, origin=b"\xff" * 16, seq=MAX,
                               predecessor=b"\xff" * 32, hlc=MAX, payload=bytes(range(256))))
    return [first, second, job1, job2, fork, unicode, empty, trailing, largest]


def invalid():
    """(name, bytes, error): each breaks one rule of an operation that is valid else."""
    payload, limit = "TANDEM_E_PAYLOAD", "TANDEM_E_LIMIT"

    def make(index=None, item=b"", head=array(12), tail=b"", **change):
        parts = items(base(**change))
        if index is not None:
            parts[index] = item
        return head + b"".join(parts) + tail

    yield "no bytes", b"", payload
    yield "not an array", b"\xc0", payload
    yield "a map", b"\x86" + make()[1:], payload
    yield "eleven items", array(11) + b"".join(items(base())[:11]), payload
    yield "cut short", make()[:-1], payload
    yield "a byte too many", make(tail=b"\x00"), payload
    yield "array header not shortest", make(head=b"\xdc\x00\x0c"), payload
    yield "version 0", make(version=0), payload
    yield "version not shortest", make(0, b"\xcc\x01"), payload
    yield "version signed", make(0, b"\xd0\x01"), payload
    yield "version a string", make(0, string("1")), payload
    yield "flags negative", make(1, b"\xff"), payload
    yield "hlc in a signed form", make(6, b"\xd1\x7f\xff"), payload
    yield "hlc a float", make(6, b"\xcb" + bytes(8)), payload
    yield "hlc not shortest", make(6, b"\xcf" + bytes(7) + b"\x01"), payload
    yield "collection empty", make(2, string("")), payload
    yield "collection a bin", make(2, binary(b"notes")), payload
    yield "collection header not shortest", make(2, b"\xd9\x05notes"), payload
    yield "collection of 129 bytes", make(2, string("x" * 129)), limit
    yield "document of 300 bytes", make(7, string("x" * 300)), limit
    yield "origin of 15 bytes", make(3, binary(bytes(15))), payload
    yield "origin of 17 bytes", make(3, binary(bytes(17))), payload
    yield "origin a string", make(3, string("x" * 16)), payload
    yield "origin header not shortest", make(3, b"\xc5\x00\x10" + bytes(16)), payload
    yield "seq 0", make(seq=0), payload
    yield "predecessor of 31 bytes", make(5, binary(bytes(31))), payload
    yield "document with a line feed", make(7, string("a\nb")), payload
    yield "document with a zero byte", make(7, string(b"a\x00b")), payload
    yield "document with DEL", make(7, string(b"a\x7f")), payload
    yield "document with a C1 control", make(7, string("a\u0085")), payload
    yield "document not UTF-8", make(7, string(b"\xff")), payload
    yield "document with a lone continuation", make(7, string(b"\x80")), payload
    yield "document cut in a character", make(7, string(b"\xe6\xbc")), payload
    yield "document with an overlong form of two", make(7, string(b"\xc0\xaf")), payload
    yield "document with an overlong form of three", make(7, string(b"\xe0\x80\xaf")), payload
    yield "document with an overlong form of four", make(7, string(b"\xf0\x80\x80\xaf")), payload
    yield "document with a surrogate", make(7, string(b"\xed\xa0\x80")), payload
    yield "document above U+10FFFF", make(7, string(b"\xf4\x90\x80\x80")), payload
    yield "branch empty", make(8, string("")), payload
    yield "scope empty", make(9, string("")), payload
    yield "type without a dot", make(10, string("SET")), payload
    yield "type without a model", make(10, string(".SET")), payload
    yield "type without a verb", make(10, string("kv.")), payload
    yield "payload a string", make(11, string("x")), payload
    yield "payload nil", make(11, b"\xc0"), payload
    yield "payload header not shortest", make(11, b"\xc5\x00\x01x"), payload
    yield "payload beyond the end", make(11, b"\xc4\x05x"), payload
    yield "trailing item promised and missing", make(head=array(13)), payload
    yield "trailing item cut short", make(head=array(13), tail=b"\x92\x01"), payload
    yield "trailing item never used", make(head=array(13), tail=b"\xc1"), payload
    yield "trailing item of 17 levels", make(head=array(13), tail=b"\x91" * 16 + b"\x90"), payload
    yield "trailing items and a byte", make(head=array(13), tail=b"\xc0\xc0"), payload


def vectors(by_name):
    def digest(entries):
        return blake(*(origin + seq.to_bytes(8, "big") + head for origin, seq, head in entries))

    def case(name, jobs, heads):
        entries = sorted((by_name[h].fields["origin"], by_name[h].fields["seq"], by_name[h].hash)
                         for h in heads)
        return {"name": name, "collection": "notes", "jobs": jobs,
                "vector": [{"origin": o.hex(), "seq": str(s), "hash": h.hex()}
                           for o, s, h in entries],
                "digest": digest(entries).hex()}

    yield case("nothing", [], [])
    yield case("one origin", [["first"], ["second"], ["job-1", "job-2"]], ["job-2"])
    yield case("two origins and a fork",
               [["unicode"], ["first"], ["second"], ["fork"], ["empty-payload"],
                ["job-1", "job-2"]],
               ["fork", "job-2", "empty-payload"])


# Seeds and public keys of RFC 8032, 7.1, tests 1 and 2.
KEYS = (("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
         "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
        ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"))


def document():
    made = operations()
    return {
        "about": "Test vectors of store/FORMAT.md, made by make_operations.py. Bytes are lower-case "
                 "hex, 64-bit numbers decimal strings.",
        "operations": [operation.json() for operation in made],
        "invalid": [{"name": name, "canonical": data.hex(), "error": error}
                    for name, data, error in invalid()],
        "chain_roots": [{"collection": name, "root": root(name).hex()}
                        for name in ("notes", "é", "_tandem")],
        "origins": [{"seed": seed, "public_key": public,
                     "origin": blake(bytes.fromhex(public))[:16].hex()} for seed, public in KEYS],
        "vector_digests": list(vectors({o.name: o for o in made})),
    }


def main():
    path = pathlib.Path(__file__).with_name("operations.json")
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not what {pathlib.Path(__file__).name} makes")
        return
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
