"""A Modbus server of pymodbus, driven by the tests over standard input.

    pymodbus_server.py tcp PORT            listens on 127.0.0.1 (0 takes a free port)
    pymodbus_server.py ascii-tcp PORT      the same with ASCII frames
    pymodbus_server.py udp PORT            the same with datagrams
    pymodbus_server.py tls PORT CA CERT KEY    the same inside TLS, for clients with a certificate of that authority
    pymodbus_server.py rtu PATH BAUD       answers on a serial port
    pymodbus_server.py ascii PATH BAUD     the same with ASCII frames

Each line of standard input is a JSON object, each answer a line of standard output:
    {"unit": 1, "table": "holding", "address": 0, "values": [1, 2]}   puts values there (and makes the unit)
    {"unit": 1, "table": "holding", "address": 0, "count": 2}         says what is there
    {"unit": 1, "clamp": 100}                                         cuts registers that are written at 100
The first line of output is {"ready": PORT}.
"""

import asyncio
import json
import ssl
import sys

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

TABLE_OF_FUNCTION = {1: "coil", 5: "coil", 15: "coil", 2: "discrete", 4: "input"}


class Units:
    """The data behind the server: units that appear when they are first filled. pymodbus does all of the protocol."""

    def __init__(self):
        self.units = {}

    def device_ids(self):
        return list(self.units)

    def table(self, unit, function):
        if unit not in self.units:
            raise NoSuchIdException(f"no unit {unit}")
        return self.units[unit][TABLE_OF_FUNCTION.get(function, "holding")]

    async def async_getValues(self, device_id, func_code, address, count=1):
        table = self.table(device_id, func_code)
        wanted = range(address, address + count)
        if any(each not in table for each in wanted):
            return ExcCodes.ILLEGAL_ADDRESS
        return [table[each] for each in wanted]

    async def async_setValues(self, device_id, func_code, address, values):
        table = self.table(device_id, func_code)
        if any(address + offset not in table for offset in range(len(values))):
            return ExcCodes.ILLEGAL_ADDRESS
        clamp = self.units[device_id]["clamp"]
        for offset, value in enumerate(values):
            if clamp is not None and not isinstance(value, bool):
                value = min(value, clamp)
            table[address + offset] = value
        return None

    def handle(self, order):
        unit = self.units.setdefault(
            order["unit"], {"coil": {}, "discrete": {}, "holding": {}, "input": {}, "clamp": None}
        )
        if "clamp" in order:
            unit["clamp"] = order["clamp"]
            return {"ok": True}
        table, first = unit[order["table"]], order["address"]
        if "values" in order:
            kind = bool if order["table"] in ("coil", "discrete") else int
            table.update({first + offset: kind(value) for offset, value in enumerate(order["values"])})
            return {"ok": True}
        return {"ok": True, "values": [int(table.get(first + offset, 0)) for offset in range(order["count"])]}


def server_of(words, nothing):
    kind, place = words[0], words[1]
    if kind in ("rtu", "ascii"):
        return ModbusSerialServer(
            nothing,
            framer=FramerType.RTU if kind == "rtu" else FramerType.ASCII,
            port=place,
            baudrate=int(words[2]),
            parity="N",
            ignore_missing_devices=True,
        )
    address = ("127.0.0.1", int(place))
    if kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(words[2])
        context.load_cert_chain(words[3], words[4])
        # Modbus/TCP Security carries the whole header; pymodbus' own framer for TLS leaves it out.
        return ModbusTlsServer(nothing, address=address, framer=FramerType.SOCKET, sslctx=context)
    if kind == "udp":
        return ModbusUdpServer(nothing, address=address, framer=FramerType.SOCKET)
    framer = FramerType.ASCII if kind == "ascii-tcp" else FramerType.SOCKET
    return ModbusTcpServer(nothing, address=address, framer=framer)


def port_of(server):
    transport = server.transport
    if hasattr(transport, "sockets"):
        return transport.sockets[0].getsockname()[1]
    found = transport.get_extra_info("sockname")
    return found[1] if isinstance(found, tuple) else 0


async def main():
    units = Units()
    nothing = SimDevice(0, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
    server = server_of(sys.argv[1:], nothing)
    server.context = units
    await server.serve_forever(background=True)
    is_serial = sys.argv[1] in ("rtu", "ascii")
    print(json.dumps({"ready": 0 if is_serial else port_of(server)}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = units.handle(json.loads(line))
        except (KeyError, ValueError, TypeError) as error:
            answer = {"ok": False, "error": repr(error)}
        print(json.dumps(answer), flush=True)
    await server.shutdown()


asyncio.run(main())
