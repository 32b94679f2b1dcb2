#!/usr/bin/env python3
"""A Bluetooth host of Google's bumble that listens to a controller it reaches over TCP (H4).

usage: listener.py PORT SECONDS     prints one JSON object a line for every advertisement: address, random, rssi, data
"""
import asyncio
import json
import sys

from bumble.device import Device
from bumble.hci import Address
from bumble.transport import open_transport


async def main():
    async with await open_transport(f"tcp-client:127.0.0.1:{sys.argv[1]}") as transport:
        device = Device.with_hci("listener", Address("F0:00:00:00:00:01"), transport.source, transport.sink)

        def heard(advertisement):
            line = {
                "address": str(advertisement.address).split("/")[0],
                "random": advertisement.address.is_random,
                "rssi": advertisement.rssi,
                "data": bytes(advertisement.data_bytes).hex(),
            }
            print(json.dumps(line), flush=True)

        device.on("advertisement", heard)
        await device.power_on()
        await device.start_scanning(active=True, legacy=True, filter_duplicates=False)
        await asyncio.sleep(float(sys.argv[2]))


asyncio.run(main())
