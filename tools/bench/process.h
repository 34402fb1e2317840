/* What a process takes, as the kernel counts it. */
#ifndef TANDEM_TOOLS_BENCH_PROCESS_H
#define TANDEM_TOOLS_BENCH_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/* Bytes of its own memory, files apart (RssAnon); 0 if it is gone. */
uint64_t bench_process_rss_anon(pid_t pid);
/* Processor time that it has used so far, in seconds. */
double bench_process_cpu_s(pid_t pid);

/* For how long its threads were ready to run and had no processor, in seconds, all together: on a
 * machine that has other work most of a latency may be that. */
double bench_process_waited_s(pid_t pid);

/* Bytes that have gone over loopback so far, of everybody, headers included. */
uint64_t bench_loopback_bytes(void);

/* The clock that benches measure with. */
uint64_t bench_now_us(void);
void bench_sleep_until_us(uint64_t us);

#endif
