/* The first process of every pod: sleeps, reaps adopted orphans, ends at once when told to. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t wanted;
    sigfillset(&wanted);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    for (;;) {
        int signal_number;
        sigwait(&wanted, &signal_number);
        if (signal_number == SIGTERM || signal_number == SIGINT) exit(0);
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    }
}
