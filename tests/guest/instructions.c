/* A plugin of QEMU's that counts the instructions of each emulated processor, those of user space and of
 * the kernel apart, in a file that whoever is in the guest can read at any time:
 *
 *     u64 user, u64 kernel      of processor 0, then of processor 1, ... 64 bytes each
 *
 * What the first processor ran is also kept by address, for as many phases as there are: the guest writes the number of
 * a phase, 1 to 7, into the eight bytes at 4096. At the end a line for each block that ran, address and counts of
 * phases 1 to 7, is written beside the file, as PATH.profile.
 *
 * A repeated string instruction is one instruction, as a processor's own counter has it: QEMU comes back to it
 * for every item it copies, as to a block of its own. What a block that faults leaves undone is counted.
 *
 * Built by tests/guest/run. The declarations are those of the plugin interface, version 1, that are used here.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_execution)(unsigned processor, void *data);
enum { NO_REGISTERS = 0 };
typedef void (*on_end)(qemu_plugin_id_t, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, on_end, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, on_execution, int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { PROCESSORS = 64, PHASES = 8, PHASE_AT = 4096, LEN = 8192 };
static struct {
    uint64_t user, kernel, unused[6];
} *counts;
static const volatile uint64_t *phase;
static const char *path;

/* A block of instructions, as translated once. */
struct block {
    struct block *next;
    uint64_t address, count, ran[PHASES];
};
static struct block *blocks;
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

static void ran(unsigned processor, void *data) {
    struct block *block = data;
    if (processor >= PROCESSORS)
        return;
    *(block->address >> 63 ? &counts[processor].kernel : &counts[processor].user) += block->count;
    if (processor == 0)
        block->ran[*phase % PHASES]++;
}

static bool is_repeated(const struct qemu_plugin_insn *insn) {
    const uint8_t *bytes = qemu_plugin_insn_data(insn);
    size_t len = qemu_plugin_insn_size(insn), at = 1;
    if (len < 2 || (bytes[0] != 0xf3 && bytes[0] != 0xf2))
        return false;
    if (at + 1 < len && (bytes[at] & 0xf0) == 0x40) /* REX */
        at++;
    /* movs, cmps, stos, lods, scas; not test, which lies between */
    return at + 1 == len && bytes[at] >= 0xa4 && bytes[at] <= 0xaf && bytes[at] != 0xa8 && bytes[at] != 0xa9;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    if (count == 1 && is_repeated(qemu_plugin_tb_get_insn(block, 0)))
        return;
    struct block *made = calloc(1, sizeof *made);
    if (made == NULL)
        abort();
    made->address = qemu_plugin_tb_vaddr(block);
    made->count = count;
    pthread_mutex_lock(&adding);
    made->next = blocks;
    blocks = made;
    pthread_mutex_unlock(&adding);
    qemu_plugin_register_vcpu_tb_exec_cb(block, ran, NO_REGISTERS, made);
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    char name[4096];
    snprintf(name, sizeof name, "%s.profile", path);
    FILE *out = fopen(name, "w");
    if (out == NULL)
        return perror(name);
    for (const struct block *block = blocks; block; block = block->next) {
        uint64_t any = 0;
        for (int i = 1; i < PHASES; i++)
            any |= block->ran[i];
        if (!any)
            continue;
        fprintf(out, "%016" PRIx64, block->address);
        for (int i = 1; i < PHASES; i++)
            fprintf(out, " %" PRIu64, block->ran[i] * block->count);
        fputc('\n', out);
    }
    fclose(out);
}

/* Arguments: counts=PATH */
__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "counts=", 7) != 0) {
        fprintf(stderr, "instructions: wants counts=PATH\n");
        return -1;
    }
    path = strdup(argv[0] + 7);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ftruncate(file, LEN) < 0)
        return perror(path), -1;
    counts = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (counts == MAP_FAILED)
        return perror("instructions: mmap"), -1;
    phase = (const volatile uint64_t *)((const char *)counts + PHASE_AT);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
