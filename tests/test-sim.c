/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Many simulated histories of a mirror: see sim.h.
 *
 *   test-sim                     as a test, the same each time; sim-long.sh is not
 *   test-sim --histories N [--seed FIRST] [--enough FINDINGS] [--counts]
 *   test-sim --seed N [--verbose] [--cut STEP]
 *   test-sim --exhaustive N [--seed FIRST]
 *
 * The second form is for a long run by hand, which can tell how often each kind of
 * event has happened; the third repeats one history,
 * with each step of it; the last cuts the power at each step of the first
 * phase of N histories.
 *
 * Children run some hundred histories each, since what a power cut leaves in
 * memory is not given back.  A finding ends the child; it tells seed
 * and reason through memory that is shared with the parent, which goes on
 * with the next seed.
 */

#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>

#include "sim.h"

/* Histories of one child. */
#if defined __SANITIZE_ADDRESS__
#define BATCH 500
#else
#define BATCH 5000
#endif
/* A history that takes so many seconds hangs. */
#define TOO_LONG 60

#if defined __SANITIZE_THREAD__
#define FIXED 50
#define EXHAUSTIVE 0
#elif defined __SANITIZE_ADDRESS__
#define FIXED 1000
#define EXHAUSTIVE 1
#else
#define FIXED 70000
#define EXHAUSTIVE 20
#endif

/* In so many histories each kind of event happens. */
#define ENOUGH_FOR_ALL 60000

struct shared {
  uint64_t done;                /* histories of this batch */
  uint64_t seed, cut_at;        /* of the one under way */
  uint64_t first_phase;
  uint64_t counts[SIM_EVENTS];  /* over all */
  char finding[2048];
};

bool sim_verbose;

static struct shared *shared;
static unsigned int findings;
static int enough = 10;         /* findings after which a run ends */

void
sim_trace_line (const char *fmt, ...)
{
  va_list args;

  printf ("# %12.6f %6" PRIu64 " ", sim_now / 1e9, sim_steps);
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
}

void
sim_fail (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (shared->finding, sizeof shared->finding, fmt, args);
  va_end (args);
  sim_trace ("FOUND %s", shared->finding);
  fflush (stdout);
  _exit (1);
}

/*----------------------------------------------------------------------
 * Counts
 */

static const char *const event_names[SIM_EVENTS] = {
  [SIM_EDIT_UNSERVED] = "a file is edited while no server runs",
  [SIM_EDIT_WISHED] = "a file is edited that the user has failed",
  [SIM_EDIT_LOST] = "a file is edited that was lost",
  [SIM_EDIT_REFUSED] = "no start, as all legs in sync were edited",
  [SIM_BLANK_LEG] = "a file that is a leg is blank",
  [SIM_BLANK_COPY] = "a copy of the log is blank",
  [SIM_OLD_LEG] = "a leg is set back, with its time",
  [SIM_OLD_COPY] = "a copy of the log is set back",
  [SIM_OLD_BOTH] = "a leg and a copy of the log are set back",
  [SIM_OLD_AFTER_CRASH] = "a leg is set back after a crash to what was clean",
  [SIM_OTHER_DISK] = "a remote leg is another disk, or an old one",
  [SIM_OTHER_DISK_REFUSED] = "no start, as a leg is another disk",
  [SIM_CUT_RECOVERY] = "a cut while a leg is slowly recovered",
  [SIM_FAULT_RECOVERY] = "a fault while a leg is slowly recovered",
  [SIM_WISH_RECOVERY] = "the user acts while a leg is slowly recovered",
  [SIM_LARGE_CHUNKS] = "chunks are larger than the least",
  [SIM_MANY_PIECES] = "chunks are copied in several pieces",
  [SIM_MANY_WORDS] = "bitmaps have several words",
  [SIM_CLIENT_RETURNS] = "a client disconnects and comes back",
  [SIM_CLIENT_RETURNS_UNTOLD] = "the same, after a loss that it has not heard of",
  [SIM_FUA_FORGETS] = "a write with FUA fails as a flush does",
  [SIM_SLOW_OPERATION] = "one operation takes long, beside others",
  [SIM_PARTIAL_READ] = "a read while a leg is in sync but for chunks in doubt",
  [SIM_PARTIAL_QUORUM] = "a write has a quorum by such a leg",
  [SIM_LATE_AFTER_LOSS] = "a write to a leg may be late, as a connection ends",
  [SIM_LATE_AFTER_KILL] = "the same, as the server is killed",
  [SIM_READ_WEAK] = "a read while writes are being lost",
  [SIM_READ_PASSES] = "a value is read, and then an older one",
  [SIM_KILL_KEEPS] = "a server ends, and no cache is lost",
};

void
sim_count (enum sim_event event)
{
  shared->counts[event]++;
}

static void
print_counts (void)
{
  unsigned int i;

  for (i = 0; i < SIM_EVENTS; i++)
    printf ("# %8" PRIu64 "  %s\n", shared->counts[i], event_names[i]);
}

/* Has each kind happened?  Says which have not. */
static bool
have_all_happened (void)
{
  bool all = true;
  unsigned int i;

  for (i = 0; i < SIM_EVENTS; i++)
    if (shared->counts[i] == 0) {
      printf ("# never: %s\n", event_names[i]);
      all = false;
    }
  return all;
}

/*----------------------------------------------------------------------
 * Batches
 */

static void
run_one (uint64_t seed, uint64_t cut_at)
{
  const struct sim_options options = { .seed = seed, .cut_at = cut_at };

  shared->seed = seed;
  shared->cut_at = cut_at;
  alarm (TOO_LONG);
  sim_history (&options);
  shared->first_phase = sim_first_phase;
  shared->done++;
}

/* One after another seed, or one cut after another. */
static void
run_batch (uint64_t seed, uint64_t cut_at, uint64_t n)
{
  uint64_t i;

  for (i = 0; i < n; i++)
    if (cut_at == 0)
      run_one (seed + i, 0);
    else
      run_one (seed, cut_at + i);
  fflush (stdout);
  _exit (0);
}

static void
report (int status)
{
  findings++;
  if (WIFSIGNALED (status))
    snprintf (shared->finding, sizeof shared->finding, "killed by %s",
              strsignal (WTERMSIG (status)));
  printf ("# seed %" PRIu64, shared->seed);
  if (shared->cut_at != 0)
    printf (" --cut %" PRIu64, shared->cut_at);
  printf (": %s\n", shared->finding);
  fflush (stdout);
}

/* Returns how many were run; the last of them may have had a finding. */
static uint64_t
fork_batch (uint64_t seed, uint64_t cut_at, uint64_t n)
{
  int status;
  pid_t pid;

  fflush (stdout);
  shared->done = 0;
  pid = fork ();
  if (pid == 0)
    run_batch (seed, cut_at, n);
  if (pid == -1 || waitpid (pid, &status, 0) == -1) {
    perror ("test-sim");
    exit (1);
  }
  if (status == 0)
    return n;
  report (status);
  return shared->done + 1;
}

static void
run_histories (uint64_t seed, uint64_t n)
{
  uint64_t done;

  for (; n > 0 && findings < (unsigned) enough; n -= done, seed += done)
    done = fork_batch (seed, 0, MIN (n, BATCH));
}

/* The power is cut at each step of the first phase. */
static void
run_exhaustively (uint64_t seed)
{
  uint64_t cut = 1, end = 2;

  fork_batch (seed, UINT64_C (1) << 40, 1);
  end = shared->first_phase + 1;
  while (cut < end && findings < (unsigned) enough)
    cut += fork_batch (seed, cut, MIN (end - cut, BATCH));
}

/*----------------------------------------------------------------------
 * As a test, and by hand
 */

static int
run_test (void)
{
  int i;

  printf ("1..%d\n", FIXED < ENOUGH_FOR_ALL ? 2 : 3);
  run_histories (1, FIXED);
  printf ("%s 1 - %d histories\n", findings == 0 ? "ok" : "not ok", FIXED);
  findings = 0;
  for (i = 0; i < EXHAUSTIVE; i++)
    run_exhaustively (1 + i);
  printf ("%s 2 - power cut at each step of %d histories\n",
          findings == 0 ? "ok" : "not ok", EXHAUSTIVE);
  if (FIXED >= ENOUGH_FOR_ALL)
    printf ("%s 3 - each kind of event has happened\n",
            have_all_happened () ? "ok" : "not ok");
  return 0;
}

static double
seconds (void)
{
  struct timeval t;

  gettimeofday (&t, NULL);
  return t.tv_sec + t.tv_usec / 1e6;
}

static gint64 histories, exhaustive, first_seed = -1, cut_step;
static gboolean with_counts;

static void
run_by_hand (uint64_t seed)
{
  int64_t i;

  if (exhaustive > 0)
    for (i = 0; i < exhaustive && findings < (unsigned) enough; i++)
      run_exhaustively (seed + i);
  else if (histories > 0)
    run_histories (seed, histories);
  else
    fork_batch (seed, cut_step, 1);
}

int
main (int argc, char **argv)
{
  const GOptionEntry entries[] = {
    { "histories", 0, 0, G_OPTION_ARG_INT64, &histories, "how many", "N" },
    { "exhaustive", 0, 0, G_OPTION_ARG_INT64, &exhaustive,
      "cut the power at each step of so many", "N" },
    { "seed", 0, 0, G_OPTION_ARG_INT64, &first_seed, "the first", "N" },
    { "cut", 0, 0, G_OPTION_ARG_INT64, &cut_step,
      "cut the power at this step, and no more", "STEP" },
    { "enough", 0, 0, G_OPTION_ARG_INT, &enough,
      "stop after so many findings (10)", "N" },
    { "counts", 0, 0, G_OPTION_ARG_NONE, &with_counts,
      "how often each kind of event has happened", NULL },
    { "verbose", 0, 0, G_OPTION_ARG_NONE, &sim_verbose, "each step", NULL },
    G_OPTION_ENTRY_NULL
  };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  double begun = seconds ();

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error)) {
    fprintf (stderr, "%s\n", error->message);
    return 2;
  }
  shared = mmap (NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED)
    return 2;
  if (first_seed < 0 && histories == 0 && exhaustive == 0)
    return run_test ();
  run_by_hand (first_seed < 0 ? (uint64_t) time (NULL) << 20 :
               (uint64_t) first_seed);
  if (with_counts)
    print_counts ();
  printf ("# %u findings, %.1f s\n", findings, seconds () - begun);
  return findings > 0;
}
