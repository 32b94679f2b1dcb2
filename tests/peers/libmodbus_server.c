/* A Modbus TCP server of libmodbus for the tests: unit ids are not looked at, every table has 256 entries.
 *
 *     libmodbus_server PORT        listens on 127.0.0.1
 *
 * Holding register n starts with the value n, input register n with 1000 + n, coil n is set where n is odd, discrete
 * input n where n is divisible by three. Prints "ready" when it listens, and ends when standard input ends.
 */
#include <errno.h>
#include <modbus/modbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENTRIES = 256, CLIENTS = 8 };

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    modbus_t *context = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *map = modbus_mapping_new(ENTRIES, ENTRIES, ENTRIES, ENTRIES);
    if (!context || !map) return 1;
    for (int n = 0; n < ENTRIES; n++) {
        map->tab_registers[n] = (uint16_t)n;
        map->tab_input_registers[n] = (uint16_t)(1000 + n);
        map->tab_bits[n] = n % 2 == 1;
        map->tab_input_bits[n] = n % 3 == 0;
    }
    int listener = modbus_tcp_listen(context, CLIENTS);
    if (listener < 0) {
        fprintf(stderr, "cannot listen on %s: %s\n", argv[1], modbus_strerror(errno));
        return 1;
    }
    puts("ready");
    fflush(stdout);

    struct pollfd polled[2 + CLIENTS] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    nfds_t count = 2;
    while (poll(polled, count, -1) >= 0) {
        char ignored[64];
        if (polled[0].revents && read(0, ignored, sizeof ignored) <= 0) break;
        if (polled[1].revents) {
            int client = accept(listener, NULL, NULL);
            if (client >= 0 && count < 2 + CLIENTS) {
                polled[count++] = (struct pollfd){.fd = client, .events = POLLIN};
            } else if (client >= 0) {
                close(client);
            }
        }
        for (nfds_t n = 2; n < count; n++) {
            if (!polled[n].revents) continue;
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(context, polled[n].fd);
            int length = modbus_receive(context, query);
            if (length > 0) modbus_reply(context, query, length, map);
            if (length < 0) {
                close(polled[n].fd);
                polled[n--] = polled[--count];
            }
        }
    }
    return 0;
}
