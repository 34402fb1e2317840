#!/usr/bin/env python3
"""
Makes backup.json: the test vectors that store/BACKUP.md refers to, "lacks" being that of version 2.

Written from that description alone, on the operations of make_operations.py; XXH3 comes from
libxxhash, which whoever runs the tests has.

    make_backup.py            writes backup.json beside this file
    make_backup.py --check    fails if the file is not what this program makes
"""
import ctypes
import json
import pathlib
import sys

from make_operations import (CONTINUES, ORIGIN, OTHER, Operation, array, base, binary, blake, integer,
                             operations, string)

MAGIC = bytes([0x89, 0x54, 0x44, 0x42, 0x0D, 0x0A, 0x1A, 0x0A])
REACTOR = bytes(range(0x40, 0x50))
TAKEN_MS = 1700000123456


def xxh3(bytes_, seed):
    function = ctypes.CDLL("libxxhash.so.0").XXH3_64bits_withSeed
    function.restype = ctypes.c_uint64
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return function(bytes_, len(bytes_), seed)


def job(*parts):
    return b"".join(binary(part.canonical) for part in parts)


def head(origin, seq, hash_):
    return origin + seq.to_bytes(8, "big") + hash_


def header(version, ordinal):
    return 1, (array(5) + integer(version) + binary(REACTOR) + binary(ORIGIN) + integer(ordinal) +
               integer(TAKEN_MS))


def lack(origin, first, last, predecessor, hash_, reason):
    return 8, (array(6) + binary(origin) + integer(first) + integer(last) + binary(predecessor) +
               binary(hash_) + integer(reason))


def records():
    """(kind, body), in order."""
    made = {operation.name: operation for operation in operations()}
    second, job1, job2 = made["second"], made["job-1"], made["job-2"]
    other2 = Operation("other-job-2", "a branch that begins within a job",
                       **base(seq=4, predecessor=job1.hash, scope="other"))
    log = Operation("log", "of another collection and a model that nobody knows",
                    **base(collection="z", predecessor=blake(b"z", bytes(16)), type="own.SAY"))
    assert job1.fields["flags"] == CONTINUES
    heads = ((ORIGIN, 2, made["fork"].hash),
             *sorted(((ORIGIN, 4, job2.hash), (ORIGIN, 4, other2.hash))),
             (OTHER, 3, made["trailing-items"].hash))
    digest = blake(b"".join(head(*each) for each in heads))
    yield header(1, 10)
    yield 2, array(1) + string("notes")
    yield 3, job(made["first"]) + job(second) + job(made["unicode"])
    yield 4, integer(0) + job(made["fork"])
    yield 3, (job(made["empty-payload"]) + job(job1, job2) +
              job(made["trailing-items"]))
    yield 4, integer(1) + job(job1, other2)
    yield 5, array(3) + integer(9) + integer(9) + binary(digest)
    yield 2, array(1) + string("z")
    yield 3, job(log)
    yield 5, (array(3) + integer(10) + integer(1) +
              binary(blake(ORIGIN + (1).to_bytes(8, "big") + log.hash)))
    yield 6, array(2) + string("bob") + string("ws://192.0.2.7:7400/tandem")
    yield 7, array(3) + integer(2) + integer(10) + integer(1)


def gapped_records():
    """What follows first and second is refused up to 4; 5 is held, and is followed by two lacks that
    follow each other. Of other's chain nothing is held, and a third collection only lacks."""
    made = {operation.name: operation for operation in operations()}
    first, second = made["first"], made["second"]
    missing = [blake(b"missing %d" % n) for n in range(4)]
    fifth = Operation("fifth", "behind a gap", **base(seq=5, predecessor=missing[0]))
    eighth = Operation("eighth", "behind two gaps", **base(seq=8, predecessor=missing[2]))
    root, root_z = blake(b"notes", bytes(16)), blake(b"z", bytes(16))
    lacks = ((ORIGIN, 3, 4, second.hash, missing[0], 32), (ORIGIN, 6, 6, fifth.hash, missing[1], 0),
             (ORIGIN, 7, 7, missing[1], missing[2], 32), (OTHER, 1, 1, root, missing[3], 32))

    def range_(origin, first_, last, _, hash_, __):
        return origin + first_.to_bytes(8, "big") + last.to_bytes(8, "big") + hash_

    yield header(2, 12)
    yield 2, array(1) + string("notes")
    yield 3, job(first) + job(second)
    yield lack(*lacks[0])
    yield 3, job(fifth)
    yield lack(*lacks[1])
    yield lack(*lacks[2])
    yield 3, job(eighth)
    yield lack(*lacks[3])
    yield 5, (array(3) + integer(11) + integer(4) +
              binary(blake(head(ORIGIN, 8, eighth.hash) + b"".join(range_(*each) for each in lacks))))
    yield 2, array(1) + string("z")
    yield lack(ORIGIN, 1, 9, root_z, missing[3], 0)
    yield 5, (array(3) + integer(0) + integer(0) +
              binary(blake(range_(ORIGIN, 1, 9, root_z, missing[3], 0))))
    yield 7, array(3) + integer(2) + integer(4) + integer(0)


def make(records_, ordinal):
    rows, stream, checksum = [], MAGIC, 0
    for kind, body in records_:
        checked = bytes([kind]) + len(body).to_bytes(4, "big") + body
        checksum = xxh3(checked, checksum)
        stream += checked + checksum.to_bytes(8, "big")
        rows.append({"kind": kind, "body": body.hex(), "checksum": "%016x" % checksum})
    return {"reactor": REACTOR.hex(), "origin": ORIGIN.hex(), "ordinal": str(ordinal),
            "taken_ms": str(TAKEN_MS), "records": rows, "stream": stream.hex()}


def main():
    path = pathlib.Path(__file__).with_name("backup.json")
    made = {**make(records(), 10), "lacks": make(gapped_records(), 12)}
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        sys.exit("%s is not what this program makes" % path.name)


if __name__ == "__main__":
    main()
