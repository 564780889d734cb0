/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A mirror with a log, over mock devices: "leg0", "leg1", ... with the log
 * on "copy0" and "copy1".  The devices outlive the mirror, so it can be
 * stopped, or lose its power, and be started again.
 *
 * What the library logs is kept (log-lines.h), since its threads do that too.
 */

#ifndef DMIO_VOLUME_H
#define DMIO_VOLUME_H

#include "dm-mirror.h"
#include "log-lines.h"
#include "test-util.h"

#define BIT(LEG) (1UL << (LEG))

/* If a test does not want it otherwise. */
#define LEGS 3
#define CHUNK DM_LOG_MIN_CHUNK
#define CHUNKS 8
#define SECTORS (CHUNKS * CHUNK)
#define ALL_LEGS (BIT (LEGS) - 1)

#define VOLUME_COPIES 2

/* The legs are regions that begin at different sectors. */
#define LEG_START(LEG) ((sector_t) (LEG) % 8 * 8)


struct volume {
  unsigned int num_legs;
  sector_t sectors, chunk;
  struct block_device *legs[DM_IO_MAX_REGIONS];
  struct block_device *copies[VOLUME_COPIES];

  /* For the next start. */
  unsigned long given;          /* legs that are given */
  unsigned long closed;         /* of these, cannot be opened */
  bool backwards;               /* given in reverse order */
  unsigned long copies_given;
  sector_t odd_count;           /* if it is not 0: what leg 1 has */
  struct dm_mirror_options options;

  struct mock_gate gate, log_gate; /* closed; as the devices may wait there, they are
                                 * here rather than in a test's function */

  struct dm_log *log;
  struct dm_mirror *mirror;     /* NULL: it does not run */
  struct dm_mirror_client client; /* all that flush, but for tests of that */
  struct dm_io_result results[DM_IO_MAX_REGIONS];
};

/* Open the devices, and make a log that says these legs are in sync; the
 * mirror does not run yet.
 */
extern void volume_open (struct volume *v, unsigned int num_legs,
                         sector_t sectors, sector_t chunk,
                         unsigned long in_sync,
                         const struct mock_options *options);
extern void volume_close (struct volume *v);

/* Start it, with or without threads. */
extern void volume_start (struct volume *v);
extern void volume_start_quiet (struct volume *v);
/* The start must be refused with a message that says this, and nothing
 * may be written.
 */
extern void volume_refused (struct volume *v, const char *says);
/* Load the log only, and forget it: what V->log was is gone. */
extern void volume_load (struct volume *v);

extern void volume_stop (struct volume *v);
/* The power is lost, or has been; sectors that were not flushed may be
 * what they were before.
 */
extern void volume_crash (struct volume *v, uint64_t seed);

/* What can be given to dm_mirror_add, and has been by start. */
extern struct io_region volume_region (struct volume *v, unsigned int leg);
/* One more device, which is not a leg yet. */
extern unsigned int volume_add_device (struct volume *v,
                                       const struct mock_options *options);

/*----------------------------------------------------------------------
 * Tests
 */

/* Devices: plain, those whose transfers wait, those that are flushed for FUA,
 * those with stamps, those with holes, and those that forget after a failed flush.
 */
extern const struct mock_options volume_plain, volume_waits, volume_by_flush,
  volume_stamped, volume_thin, volume_forgets;

/* A test gets a volume of LEGS legs in sync that does not run, and DATA. */
struct volume_test {
  const char *path;
  void (*test) (struct volume *v, unsigned int data);
  unsigned int data;
  const struct mock_options *options;
};
extern void volume_add_test (const char *prefix,
                             const struct volume_test *test);
#define VOLUME_ADD_TESTS(PREFIX, TESTS)                                 \
  do {                                                                  \
    log_lines_keep ();                                                  \
    for (size_t i = 0; i < G_N_ELEMENTS (TESTS); i++)                   \
      volume_add_test (PREFIX, &(TESTS)[i]);                            \
  } while (0)

/* Begin anew, with other devices. */
extern void volume_again (struct volume *v, unsigned int num_legs,
                          sector_t sectors, sector_t chunk,
                          unsigned long in_sync,
                          const struct mock_options *options);

/*----------------------------------------------------------------------
 * Requests: all sectors have the same bytes
 */

extern bool volume_write (struct volume *v, int byte, sector_t sector,
                          sector_t count);
extern bool volume_write_fua (struct volume *v, int byte, sector_t sector,
                              sector_t count);
extern bool volume_flush (struct volume *v);
/* Its byte, or -1 if it cannot be read. */
extern int volume_read (struct volume *v, sector_t sector);

/* A write, read or flush by a thread of its own. */
struct client {
  struct volume *v;
  enum { CLIENT_WRITE, CLIENT_READ, CLIENT_FLUSH } what;
  int byte;                     /* of a write; of a read when it has ended */
  sector_t sector, count;
  bool ok;                      /* it has succeeded */
  bool ended;                   /* atomic */
  pthread_t thread;
};
extern void client_start (struct client *client);
/* Returns ok. */
extern bool client_finish (struct client *client);
/* True if it ends although it is given time to. */
extern bool client_ends_soon (struct client *client);

/*----------------------------------------------------------------------
 * Legs
 */

/* These operations fail, a set of enum mock_op; there if COUNT is not 0. */
extern void volume_fail (struct volume *v, unsigned int leg,
                         unsigned int ops, int error, sector_t sector,
                         sector_t count);
/* They wait. */
extern void volume_hold (struct block_device *bdev, unsigned int ops,
                         struct mock_gate *gate);
extern void volume_heal (struct volume *v);
/* They fail, and the leg does not come back. */
extern void volume_kill (struct volume *v, unsigned int leg,
                         unsigned int ops, int error);

/* A byte of a leg. */
extern int leg_byte (struct volume *v, unsigned int leg, sector_t sector);
/* Write there directly, so that it differs. */
extern void leg_set (struct volume *v, unsigned int leg, int byte,
                     sector_t sector, sector_t count);
/* All these legs are byte for byte alike. */
extern void volume_assert_alike (struct volume *v, unsigned long legs);

extern enum dm_mirror_state leg_state (struct volume *v, unsigned int leg);
/* Bytes it lacks. */
extern uint64_t leg_lacks (struct volume *v, unsigned int leg);
extern unsigned int volume_in_sync (struct volume *v);

/*----------------------------------------------------------------------
 * The log, and the devices
 */

/* True if the log that was loaded has the chunk as one that may differ. */
extern bool log_is_dirty (struct volume *v, uint64_t chunk);
/* True if the leg lacks the chunk. */
extern bool log_lacks (struct volume *v, unsigned int leg, uint64_t chunk);
extern enum dm_log_state log_state (struct volume *v, unsigned int leg);
/* The time of its stamp there, or 0; and that of its device. */
extern uint64_t volume_mtime (struct volume *v, unsigned int leg);

#define CHANGES (MOCK_WRITE | MOCK_PUNCH | MOCK_ZERO)
extern void volume_clear_traces (struct volume *v);
/* Operations on all copies of the log. */
extern unsigned int volume_count_copies (struct volume *v, unsigned int ops);

/* The first or the last of some operations on a device, which is idle. */
extern const struct mock_event *
volume_find_event (struct block_device *bdev, unsigned int ops, bool last);

/*----------------------------------------------------------------------
 * Waiting
 */

/* Wait for it, or give up. */
extern void volume_await_state (struct volume *v, unsigned int leg,
                                enum dm_mirror_state state);
extern void volume_await_in_sync (struct volume *v);

/* Wait until CONDITION holds, or give up. */
#define AWAIT(CONDITION)                                                \
  do {                                                                  \
    gint64 await_end = g_get_monotonic_time () +                        \
      WAIT_SECONDS * G_USEC_PER_SEC;                                    \
    while (!(CONDITION)) {                                              \
      if (g_get_monotonic_time () > await_end)                          \
        g_error ("%s:%d: '%s' does not come true", __FILE__, __LINE__,  \
                 #CONDITION);                                           \
      g_usleep (1000);                                                  \
    }                                                                   \
  } while (0)

#endif /* DMIO_VOLUME_H */
