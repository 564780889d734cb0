/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include "volume.h"

/*----------------------------------------------------------------------
 * Devices
 */

static void
open_leg (struct volume *v, unsigned int leg,
          const struct mock_options *options)
{
  g_autofree char *name = g_strdup_printf ("leg%u", leg);

  v->legs[leg] = mock_open (name, (LEG_START (leg) + v->sectors) * SECTOR,
                            options);
}

static void
open_copies (struct volume *v)
{
  const struct mock_options options = { .max_trace = 16384 };
  char name[] = "copy?";
  unsigned int i;

  for (i = 0; i < VOLUME_COPIES; i++) {
    name[4] = '0' + i;
    v->copies[i] =
      mock_open (name, dm_log_copy_sectors (v->sectors, v->chunk) * SECTOR,
                 &options);
  }
}

struct io_region
volume_region (struct volume *v, unsigned int leg)
{
  return (struct io_region) {
    .bdev = v->legs[leg], .sector = LEG_START (leg),
    .count = leg == 1 && v->odd_count != 0 ? v->odd_count : v->sectors,
  };
}

static unsigned int
get_copies (struct volume *v, struct dm_log_copy *copies)
{
  unsigned int i, n = 0;

  for (i = 0; i < VOLUME_COPIES; i++)
    if (v->copies_given & BIT (i))
      copies[n++] = (struct dm_log_copy) {
        .region = {
          .bdev = v->copies[i],
          .count = dm_bdev_sectors (v->copies[i]),
        },
        .name = dm_bdev_name (v->copies[i]),
      };
  return n;
}

static void
make_log (struct volume *v, unsigned long in_sync)
{
  struct dm_log_leg legs[DM_IO_MAX_REGIONS] = { 0 };
  struct dm_log_copy copies[VOLUME_COPIES];
  char *error = NULL;
  unsigned int i;

  for (i = 0; i < v->num_legs; i++) {
    legs[i].id = (char *) dm_bdev_name (v->legs[i]);
    legs[i].state = in_sync & BIT (i) ? DM_LOG_IN_SYNC : DM_LOG_OUT_OF_SYNC;
    legs[i].sectors = v->sectors;
    g_assert_cmpint (bdev_stamp (v->legs[i], &legs[i].stamp), ==, 0);
  }
  v->log = dm_log_new (get_copies (v, copies), copies, v->sectors, v->chunk,
                       v->num_legs, legs, &error);
  if (v->log == NULL)
    g_error ("dm_log_new: %s", error);
}

void
volume_open (struct volume *v, unsigned int num_legs, sector_t sectors,
             sector_t chunk, unsigned long in_sync,
             const struct mock_options *options)
{
  unsigned int i;

  memset (v, 0, sizeof *v);
  v->gate = (struct mock_gate) MOCK_GATE_INIT (0);
  v->log_gate = (struct mock_gate) MOCK_GATE_INIT (0);
  v->num_legs = num_legs;
  v->sectors = sectors;
  v->chunk = chunk;
  v->given = (2UL << (num_legs - 1)) - 1;
  v->copies_given = BIT (VOLUME_COPIES) - 1;
  v->options.policy = DM_MIRROR_READ_FIRST;
  log_lines_clear ();
  for (i = 0; i < num_legs; i++)
    open_leg (v, i, options);
  open_copies (v);
  make_log (v, in_sync);
}

unsigned int
volume_add_device (struct volume *v, const struct mock_options *options)
{
  open_leg (v, v->num_legs, options);
  return v->num_legs++;
}

void
volume_close (struct volume *v)
{
  unsigned int i;

  volume_heal (v);
  volume_stop (v);
  for (i = 0; i < v->num_legs; i++)
    mock_close (v->legs[i]);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_close (v->copies[i]);
}

/*----------------------------------------------------------------------
 * Tests
 */

#define TRACE 4096
const struct mock_options volume_plain = { .max_trace = TRACE };
const struct mock_options volume_waits = {
  .always_waits = true, .max_trace = TRACE,
};
const struct mock_options volume_by_flush = {
  .fua_by_flush = true, .max_trace = TRACE,
};
const struct mock_options volume_stamped = {
  .has_stamp = true, .max_trace = TRACE,
};
const struct mock_options volume_forgets = {
  .fua_by_flush = true, .forgets = true, .max_trace = TRACE,
};
const struct mock_options volume_thin = {
  .can_punch = true, .can_zero = true, .has_extents = true,
  .max_trace = TRACE,
};

static void
run_test (gconstpointer data)
{
  const struct volume_test *test = data;
  struct volume *v = g_new (struct volume, 1);

  volume_open (v, LEGS, SECTORS, CHUNK, ALL_LEGS, test->options);
  test->test (v, test->data);
  volume_close (v);
  g_free (v);
}

void
volume_add_test (const char *prefix, const struct volume_test *test)
{
  g_autofree char *path = g_strconcat (prefix, test->path, NULL);

  g_test_add_data_func (path, test, run_test);
}

void
volume_again (struct volume *v, unsigned int num_legs, sector_t sectors,
              sector_t chunk, unsigned long in_sync,
              const struct mock_options *options)
{
  volume_close (v);
  volume_open (v, num_legs, sectors, chunk, in_sync, options);
}

/*----------------------------------------------------------------------
 * Start and stop
 */

static void
forget_log (struct volume *v)
{
  dm_log_free (v->log);
  v->log = NULL;
}

void
volume_load (struct volume *v)
{
  struct dm_log_copy copies[VOLUME_COPIES];
  char *error = NULL;

  forget_log (v);
  v->log = dm_log_load (get_copies (v, copies), copies, &error);
  if (v->log == NULL)
    g_error ("dm_log_load: %s", error);
}

static struct dm_mirror *
make_mirror (struct volume *v, char **error)
{
  struct dm_mirror_leg legs[DM_IO_MAX_REGIONS];
  unsigned int i, leg, n = 0;

  if (v->log == NULL)
    volume_load (v);
  for (i = 0; i < v->num_legs; i++) {
    leg = v->backwards ? v->num_legs - 1 - i : i;
    if (!(v->given & BIT (leg)))
      continue;
    legs[n] = (struct dm_mirror_leg) {
      .region = volume_region (v, leg), .name = dm_bdev_name (v->legs[leg]),
    };
    if (v->closed & BIT (leg))
      legs[n].region.bdev = NULL;
    n++;
  }
  v->options.log = v->log;
  return dm_mirror_new (n, legs, &v->options, error);
}

void
volume_start_quiet (struct volume *v)
{
  char *error = NULL;

  v->mirror = make_mirror (v, &error);
  if (v->mirror == NULL)
    g_error ("dm_mirror_new: %s", error);
  dm_mirror_client_init (v->mirror, &v->client);
  g_assert_null (error);
}

void
volume_start (struct volume *v)
{
  volume_start_quiet (v);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
}

/* Bytes, on all devices. */
static uint64_t
changed (struct volume *v)
{
  uint64_t n = 0;
  unsigned int i;

  for (i = 0; i < v->num_legs; i++)
    n += mock_changed (v->legs[i]);
  for (i = 0; i < VOLUME_COPIES; i++)
    n += mock_changed (v->copies[i]);
  return n;
}

void
volume_refused (struct volume *v, const char *says)
{
  uint64_t before = changed (v);
  g_autofree char *error = NULL;

  g_assert_null (make_mirror (v, &error));
  g_assert_nonnull (error);
  if (strstr (error, says) == NULL)
    g_error ("message does not say '%s': %s", says, error);
  g_assert_cmpuint (changed (v), ==, before);
  forget_log (v);
}

void
volume_stop (struct volume *v)
{
  unsigned int i;

  dm_mirror_free (v->mirror);
  v->mirror = NULL;
  forget_log (v);
  for (i = 0; i < v->num_legs; i++)
    mock_reopen (v->legs[i]);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_reopen (v->copies[i]);
}

void
volume_crash (struct volume *v, uint64_t seed)
{
  unsigned int i;

  mock_power_off ();
  volume_stop (v);
  for (i = 0; i < v->num_legs; i++)
    mock_power_cut (v->legs[i], seed + i);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_power_cut (v->copies[i], ~seed - i);
  mock_power_on ();
}

/*----------------------------------------------------------------------
 * Requests
 */

static bool
write_bytes (struct volume *v, unsigned int flags, int byte, sector_t sector,
             sector_t count, struct dm_io_result *results)
{
  g_autofree unsigned char *buf = g_malloc (count * SECTOR);

  memset (buf, byte, count * SECTOR);
  return dm_mirror_write (v->mirror, DM_IO_WRITE, flags, buf, sector, count,
                          results);
}

bool
volume_write (struct volume *v, int byte, sector_t sector, sector_t count)
{
  return write_bytes (v, 0, byte, sector, count, v->results);
}

bool
volume_write_fua (struct volume *v, int byte, sector_t sector, sector_t count)
{
  return write_bytes (v, DM_IO_FUA, byte, sector, count, v->results);
}

bool
volume_flush (struct volume *v)
{
  return dm_mirror_flush (v->mirror, &v->client, v->results);
}

static int
read_byte (struct volume *v, sector_t sector, struct dm_io_result *results)
{
  unsigned char buf[SECTOR];

  if (!dm_mirror_read (v->mirror, buf, sector, 1, results))
    return -1;
  assert_same (buf, buf + 1, SECTOR - 1);
  return buf[0];
}

int
volume_read (struct volume *v, sector_t sector)
{
  return read_byte (v, sector, v->results);
}

static void *
client_main (void *arg)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  struct client *c = arg;

  switch (c->what) {
  case CLIENT_WRITE:
    c->ok = write_bytes (c->v, 0, c->byte, c->sector, c->count, results);
    break;
  case CLIENT_READ:
    c->byte = read_byte (c->v, c->sector, results);
    c->ok = c->byte >= 0;
    break;
  case CLIENT_FLUSH:
    c->ok = dm_mirror_flush (c->v->mirror, &c->v->client, results);
    break;
  }
  __atomic_store_n (&c->ended, true, __ATOMIC_RELEASE);
  return NULL;
}

void
client_start (struct client *c)
{
  c->ended = false;
  g_assert_cmpint (pthread_create (&c->thread, NULL, client_main, c), ==, 0);
}

bool
client_finish (struct client *c)
{
  g_assert_cmpint (pthread_join (c->thread, NULL), ==, 0);
  return c->ok;
}

bool
client_ends_soon (struct client *c)
{
  unsigned int i;

  for (i = 0; i < 50; i++) {
    if (__atomic_load_n (&c->ended, __ATOMIC_ACQUIRE))
      return true;
    g_usleep (1000);
  }
  return false;
}

/*----------------------------------------------------------------------
 * Legs
 */

void
volume_fail (struct volume *v, unsigned int leg, unsigned int ops, int error,
             sector_t sector, sector_t count)
{
  const struct mock_fault fault = {
    .ops = ops, .error = error,
    .offset = (LEG_START (leg) + sector) * SECTOR, .length = count * SECTOR,
  };

  mock_fault (v->legs[leg], &fault);
}

void
volume_hold (struct block_device *bdev, unsigned int ops,
             struct mock_gate *gate)
{
  const struct mock_fault fault = { .ops = ops, .gate = gate };

  mock_fault (bdev, &fault);
}

void
volume_heal (struct volume *v)
{
  unsigned int i;

  for (i = 0; i < v->num_legs; i++) {
    mock_clear_faults (v->legs[i]);
    mock_set_revive (v->legs[i], 0, 0);
  }
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_clear_faults (v->copies[i]);
}

void
volume_kill (struct volume *v, unsigned int leg, unsigned int ops, int error)
{
  mock_set_revive (v->legs[leg], 0, -EIO);
  volume_fail (v, leg, ops, error, 0, 0);
}

static unsigned char *
leg_data (struct volume *v, unsigned int leg)
{
  return mock_data (v->legs[leg]) + LEG_START (leg) * SECTOR;
}

int
leg_byte (struct volume *v, unsigned int leg, sector_t sector)
{
  return mock_byte (v->legs[leg], (LEG_START (leg) + sector) * SECTOR);
}

void
leg_set (struct volume *v, unsigned int leg, int byte, sector_t sector,
         sector_t count)
{
  g_autofree unsigned char *buf = g_malloc (count * SECTOR);

  memset (buf, byte, count * SECTOR);
  mock_set (v->legs[leg], (LEG_START (leg) + sector) * SECTOR, buf,
            count * SECTOR);
}

void
volume_assert_alike (struct volume *v, unsigned long legs)
{
  unsigned int first = __builtin_ctzl (legs), i;

  for (i = first + 1; i < v->num_legs; i++)
    if (legs & BIT (i))
      assert_same (leg_data (v, i), leg_data (v, first),
                   v->sectors * SECTOR);
}

enum dm_mirror_state
leg_state (struct volume *v, unsigned int leg)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (v->mirror, &status);
  dm_mirror_status_clear (&status);
  return status.legs[leg].state;
}

uint64_t
leg_lacks (struct volume *v, unsigned int leg)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (v->mirror, &status);
  dm_mirror_status_clear (&status);
  return status.legs[leg].out_of_sync;
}

unsigned int
volume_in_sync (struct volume *v)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (v->mirror, &status);
  dm_mirror_status_clear (&status);
  return status.in_sync;
}

/*----------------------------------------------------------------------
 * The log, and the devices
 */

bool
log_is_dirty (struct volume *v, uint64_t chunk)
{
  return dm_log_next_unreconciled (v->log, chunk, chunk + 1) == chunk;
}

bool
log_lacks (struct volume *v, unsigned int leg, uint64_t chunk)
{
  uint64_t first = chunk, after;
  unsigned long lacking;

  return dm_log_next_lacking (v->log, BIT (leg), &first, chunk + 1, &after,
                              &lacking);
}

enum dm_log_state
log_state (struct volume *v, unsigned int leg)
{
  struct dm_log_leg info;

  dm_log_get_leg (v->log, leg, &info);
  return info.state;
}

uint64_t
volume_mtime (struct volume *v, unsigned int leg)
{
  struct bdev_stamp stamp;

  bdev_glance (v->legs[leg], &stamp);
  return stamp.mtime;
}

void
volume_clear_traces (struct volume *v)
{
  unsigned int i;

  for (i = 0; i < v->num_legs; i++)
    mock_clear_trace (v->legs[i]);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_clear_trace (v->copies[i]);
}

unsigned int
volume_count_copies (struct volume *v, unsigned int ops)
{
  unsigned int i, n = 0;

  for (i = 0; i < VOLUME_COPIES; i++)
    n += mock_count (v->copies[i], ops);
  return n;
}

const struct mock_event *
volume_find_event (struct block_device *bdev, unsigned int ops,
                   bool last)
{
  const struct mock_event *trace, *found = NULL;
  size_t n, i;

  trace = mock_trace (bdev, &n);
  for (i = 0; i < n; i++)
    if (trace[i].op & ops && (found == NULL || last))
      found = &trace[i];
  g_assert_nonnull (found);
  return found;
}

/*----------------------------------------------------------------------
 * Waiting
 */

void
volume_await_state (struct volume *v, unsigned int leg,
                    enum dm_mirror_state state)
{
  AWAIT (leg_state (v, leg) == state);
}

void
volume_await_in_sync (struct volume *v)
{
  AWAIT (dm_mirror_is_in_sync (v->mirror));
}
