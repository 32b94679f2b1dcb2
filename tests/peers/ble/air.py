#!/usr/bin/env python3
"""The air around a real bluetoothd: virtual devices of Google's bumble, and the controller that hears them on /dev/vhci.

usage: air.py FILE      writes the TCP port it takes orders on (127.0.0.1, one JSON object a line) into FILE when it is ready

A twin (connectable) and a lock (connectable, with a passkey) are always there. Orders:
  {"op": "advertise", "address": "F0:...", "data": "<AD structures in hex>", "every_ms": 200}   a device that only speaks
  {"op": "hush", "address": "F0:..."}                                                         it stops
  {"op": "value"}                                                                             what was written last
  {"op": "drop"}                                                                              the twin ends its link
"""
import asyncio
import dataclasses
import json
import os
import sys
import tempfile

from bumble import hci, ll
from bumble.att import ATT_Error
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData, PhysicalTransport
from bumble.device import Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address
from bumble.host import Host
from bumble.keys import JsonKeyStore
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport import open_transport

TWIN, LOCK = "F0:F1:F2:F3:F4:F5", "F0:F1:F2:F3:F4:F8"
PASSKEY = 123456
# The bit of the LE event mask that asks for "LE Enhanced Connection Complete" (7.8.1).
ENHANCED = 1 << 9
READ, WRITE, NOTIFY = Characteristic.Properties.READ, Characteristic.Properties.WRITE, Characteristic.Properties.NOTIFY
READABLE, WRITEABLE = Characteristic.READABLE, Characteristic.WRITEABLE


def own(number):
    return UUID(f"50DB505C-8AC4-4738-8448-3B1D9CC09C{number:02X}")


class Link(LocalLink):
    """Data is stamped with the address the connection was made with; this version of bumble stamps the random one."""

    def send_acl_data(self, sender_controller, destination_address, transport, data):
        connection = sender_controller.le_connections.get(destination_address)
        if transport != PhysicalTransport.LE or connection is None:
            return super().send_acl_data(sender_controller, destination_address, transport, data)
        to = self.find_le_controller(destination_address)
        if to:
            asyncio.get_running_loop().call_soon(lambda: to.on_link_acl_data(connection.self_address, transport, data))


class Receiver(Controller):
    """A controller as the specification has it (Core 5.4, volume 4, part E), where this version of bumble is not.

    It hears every packet a little louder or fainter than the last, as air does; bluetoothd tells only what changes.
    """

    level = 0

    def on_hci_reset_command(self, command):
        # 7.3.2: nothing is being made, listened for or connected afterwards. An adapter that was switched off has to be new.
        self.pending_le_connection = None
        self.le_scan_enable = False
        for connection in self.le_connections.values():
            connection.send_ll_control_pdu(ll.TerminateInd(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR))
        self.le_connections.clear()
        return super().on_hci_reset_command(command)

    def on_hci_le_create_connection_cancel_command(self, command):
        # 7.8.13: what is not being made cannot be cancelled; what is cancelled is told by an event after the answer.
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        cancelled = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, connection_handle=0, role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address.address_type, peer_address=pending.peer_address,
            connection_interval=0, peripheral_latency=0, supervision_timeout=0, central_clock_accuracy=0)
        asyncio.get_running_loop().call_soon(self.send_hci_packet, cancelled)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def send_hci_packet(self, packet):
        if isinstance(packet, (hci.HCI_LE_Advertising_Report_Event, hci.HCI_LE_Extended_Advertising_Report_Event)):
            self.level = (self.level + 1) % 7
            reports = [dataclasses.replace(report, rssi=-50 - self.level) for report in packet.reports]
            packet = type(packet)(reports)
        elif isinstance(packet, hci.HCI_LE_Connection_Complete_Event) and self.le_event_mask & ENHANCED:
            packet = enhanced(packet)
        super().send_hci_packet(packet)


def enhanced(event):
    """A new connection, told in the event that takes the other's place when the host has asked for it (7.7.65.10).

    Linux asks every controller with link layer privacy for it and then waits for no other: four seconds after the request
    it cancels what has long been connected, and a "disconnect" never reaches the controller.
    """
    return hci.HCI_LE_Enhanced_Connection_Complete_Event(
        status=event.status, connection_handle=event.connection_handle, role=event.role,
        peer_address_type=event.peer_address_type, peer_address=event.peer_address,
        local_resolvable_private_address=Address.ANY_RANDOM, peer_resolvable_private_address=Address.ANY_RANDOM,
        connection_interval=event.connection_interval, peripheral_latency=event.peripheral_latency,
        supervision_timeout=event.supervision_timeout, central_clock_accuracy=event.central_clock_accuracy)


class Display(PairingDelegate):
    """Shows a passkey that never changes, as a label does."""

    def __init__(self):
        super().__init__(PairingDelegate.DISPLAY_OUTPUT_ONLY)

    async def generate_passkey(self):
        return PASSKEY

    async def display_number(self, number, digits):
        pass


class Air:
    def __init__(self):
        self.link = Link()
        self.speakers = {}
        self.value = b"initial"
        self.heart = 60
        self.number = 0

    async def device(self, name, address, services, config, data):
        self.number += 1
        host = Host()
        host.controller = Controller(name, link=self.link, public_address=f"F6:F7:F8:F9:FB:{self.number:02X}/P")
        device = Device(name=name, address=Address(address))
        device.host = host
        device.add_services(services)
        device.pairing_config_factory = lambda _: config
        await device.power_on()
        # Devices remember whom they are paired with when the adapter goes and comes.
        device.keystore = JsonKeyStore(address, os.path.join(tempfile.gettempdir(), "bumble-keys.json"))
        device.advertising_data = bytes(AdvertisingData([(AdvertisingData.FLAGS, b"\x06"), *data]))
        # A device that is connected is silent, and speaks again afterwards; bumble's own restart does not, over this link.
        device.on("connection", lambda connection: connection.on(
            "disconnection", lambda _: asyncio.create_task(self.advertise(device))))
        await self.advertise(device)
        return device

    async def advertise(self, device):
        await device.stop_advertising()
        await device.start_advertising(advertising_interval_min=200, advertising_interval_max=200)

    async def begin(self):
        transport = await open_transport("vhci")
        self.controller = Receiver(
            "gateway", host_source=transport.source, host_sink=transport.sink, link=self.link,
            public_address="F6:F7:F8:F9:FA:01/P")
        self.beat = Characteristic("2A37", NOTIFY, 0, b"")

        def write(connection, value):
            self.value = bytes(value)

        def refuse(connection):
            raise ATT_Error(0x80)

        services = [
            Service("180F", [Characteristic("2A19", READ, READABLE, bytes([77]))]),
            Service("180D", [self.beat]),
            Service(own(0xC5), [
                Characteristic(own(0xC6), READ | WRITE, READABLE | WRITEABLE,
                               CharacteristicValue(read=lambda _: self.value, write=write)),
                Characteristic(own(0xC7), READ, READABLE | Characteristic.READ_REQUIRES_ENCRYPTION, b"secret-value"),
                Characteristic(own(0xC8), READ, READABLE, CharacteristicValue(read=refuse)),
            ])]
        just_works = PairingConfig(
            sc=True, mitm=False, bonding=True, delegate=PairingDelegate(PairingDelegate.NO_OUTPUT_NO_INPUT))
        self.twin = await self.device("bumble-twin", TWIN, services, just_works, [
            (AdvertisingData.COMPLETE_LOCAL_NAME, b"bumble-twin"),
            (AdvertisingData.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, b"\x0d\x18")])
        locked = [Service(own(0xD5), [Characteristic(
            own(0xD6), READ | WRITE, READABLE | WRITEABLE | Characteristic.READ_REQUIRES_AUTHENTICATION, b"unlocked")])]
        labelled = PairingConfig(sc=True, mitm=True, bonding=True, delegate=Display())
        await self.device("bumble-lock", LOCK, locked, labelled, [
            (AdvertisingData.COMPLETE_LOCAL_NAME, b"bumble-lock")])
        asyncio.create_task(self.pulse())

    async def pulse(self):
        while True:
            await asyncio.sleep(0.4)
            self.heart = 60 + (self.heart - 59) % 120
            try:
                await self.twin.notify_subscribers(self.beat, bytes([0, self.heart]))
            except Exception as error:  # a link that breaks meanwhile
                print("notify", error, flush=True)

    async def speak(self, address, data, pause):
        packet = ll.AdvInd(advertiser_address=Address(address), data=bytes.fromhex("020106") + data)
        while True:
            self.link.send_advertising_pdu(self.twin.host.controller, packet)
            await asyncio.sleep(pause)

    async def order(self, order):
        match order["op"]:
            case "advertise":
                self.hush(order["address"])
                pause = order.get("every_ms", 200) / 1000
                task = asyncio.create_task(self.speak(order["address"], bytes.fromhex(order["data"]), pause))
                self.speakers[order["address"]] = task
            case "hush":
                self.hush(order["address"])
            case "value":
                return {"value": self.value.hex()}
            case "drop":
                for connection in list(self.twin.connections.values()):
                    await connection.disconnect()
            case other:
                raise ValueError(f"no order {other}")
        return {}

    def hush(self, address):
        if task := self.speakers.pop(address, None):
            task.cancel()

    async def serve(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = {"ok": True, **await self.order(json.loads(line))}
            except Exception as error:
                answer = {"ok": False, "error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()


async def main():
    air = Air()
    await air.begin()
    server = await asyncio.start_server(air.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(port))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    await server.serve_forever()


asyncio.run(main())
