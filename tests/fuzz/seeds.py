#!/usr/bin/env python3
"""Makes the first inputs of the fuzz targets out of the vectors that the tests read.

usage: seeds.py FOLDER      writes FOLDER/wires, FOLDER/air and FOLDER/files
"""
import hashlib
import json
import pathlib
import sys

here = pathlib.Path(__file__).resolve().parent
data = here.parent / "data"
profiles = here.parent.parent / "configs" / "profiles"
out = pathlib.Path(sys.argv[1])


def vectors(name):
    return json.loads((data / name).read_text())["vectors"]


def put(target, entry, *parts):
    seed = bytes([entry]) + b"".join(parts)
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(seed).hexdigest()[:16]).write_bytes(seed)


def hexes(value):
    """Every text of a vector that is nothing but pairs of hexadecimal digits."""
    if isinstance(value, str) and len(value) >= 4 and len(value) % 2 == 0:
        try:
            yield bytes.fromhex(value)
        except ValueError:
            pass
    elif isinstance(value, dict):
        for each in value.values():
            yield from hexes(each)
    elif isinstance(value, list):
        for each in value:
            yield from hexes(each)


for vector in vectors("serial_frames.json"):
    for stream in hexes(vector["input"]):
        for profile in range(18):
            put("wires", 0, bytes([profile, 3]), stream)
for vector in vectors("nmea.json")[:20]:
    put("wires", 0, bytes([0, 5]), vector["sentence"].encode() + b"\r\n")
for vector in vectors("modbus_frames.json"):
    for frame in hexes(vector["input"]):
        for way in range(6):
            put("wires", 2, bytes([way]), frame)
        put("wires", 3, frame)
for text in ["SP={value:.1}\r\n\0SP=21.5\r\n", "FF {value:u16be} {check}\0", "ddMMyy hhmmss.sss\0191194 225446", "/EMH5\\@01LZQJL0013"]:
    put("wires", 3, text.encode())
for name in ["ble_bthome.json", "ble_other.json"]:
    for vector in vectors(name):
        given = vector["input"]
        if "adv_hex" in given:
            put("air", 0, bytes.fromhex(given["adv_hex"]))
        if "service_data_hex" in given:
            put("air", 1, bytes([0]), bytes.fromhex(given["service_data_hex"]))
        for number, part in enumerate(hexes([given.get("service_data", {}), given.get("manufacturer_data", {})])):
            for which in range(16):
                put("air", 1, bytes([which | number << 4]), part)
for value in ["860b", "64", "0080", "ea07021c0c0000", "fe0803", "00000000"]:
    for characteristic in (0x6E, 0x19, 0x08, 0x1C, 0x2B):
        put("air", 2, bytes([characteristic, 5]), bytes.fromhex(value))
for packet in ["01030c00", "01091000", "010b2007010010001000000", "010c20020100"]:
    put("air", 3, bytes.fromhex(packet[: len(packet) // 2 * 2]))
for path in sorted(profiles.glob("*.yaml")):
    text = path.read_bytes()
    put("files", 0, text)
    put("files", 1, text)
for text in ["a > 1 && b < 2", "twin/d/reported/p", '{"patch":{"a":1},"if_version":7}', "2026-01-01T00:00:00Z"]:
    put("files", 2, text.encode())
