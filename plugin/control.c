/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* One thread serves all clients, from a main context of its own.  What can
 * take long does not stop it: fail and add run each in a thread of their own,
 * and who waits for the mirror is in a list that is looked at every so often.
 *
 * All in struct control belongs to that thread, but for what does not change and
 * what the lock owns.  Other threads reach it through wake_fd.  (GLib is not
 * used to pass anything between threads, so that ThreadSanitizer sees how
 * that is ordered.)
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <glib-unix.h>

#include "control.h"
#include "dm-mirror.h"
#include "escape.h"
#include "message.h"
#include "rpc.h"
#include "worker.h"

#define LOOK_INTERVAL 150       /* milliseconds */

struct control {
  pthread_t thread;
  struct dm_mirror *mirror;
  struct legs *legs;
  int fd;
  int wake_fd;                  /* an eventfd */

  pthread_mutex_t lock;         /* owns this */
  bool stop;
  struct job *ended;            /* jobs */

  GMainContext *context;
  struct rpc *rpc;
  bool stopping;
  GList *waits;
  GSource *look;                /* NULL: nobody waits */
};

/* A method ends with rpc_reply or rpc_error.  PARAMS is an object. */
typedef void (*method_fn) (struct control *control, struct rpc_call *call,
                           GVariant *params);

/*----------------------------------------------------------------------
 * status
 */

static double
progress (const struct dm_mirror_leg_status *leg)
{
  if (leg->state == DM_MIRROR_IN_SYNC)
    return 100;
  if (leg->state != DM_MIRROR_RECOVERING || leg->to_copy == 0 ||
      leg->out_of_sync > leg->to_copy)
    return 0;
  return floor (1000.0 * (leg->to_copy - leg->out_of_sync) / leg->to_copy) /
    10;
}

static GVariant *
string_or_null (const char *s)
{
  return s != NULL ? message_string (s) :
    g_variant_new_maybe (G_VARIANT_TYPE_VARIANT, NULL);
}

/* VALUE may be floating.  The order is kept, for those who read it. */
static void
put (GVariantBuilder *object, const char *key, GVariant *value)
{
  g_variant_builder_add (object, "{sv}", key, value);
}

static GVariant *
leg_as_variant (unsigned int number, const struct dm_mirror_leg_status *leg)
{
  GVariantBuilder object;

  g_variant_builder_init (&object, G_VARIANT_TYPE_VARDICT);
  put (&object, "number", g_variant_new_uint32 (number));
  put (&object, "spec", message_name (leg->name));
  put (&object, "state",
       g_variant_new_string (dm_mirror_state_name (leg->state)));
  put (&object, "out_of_sync", g_variant_new_uint64 (leg->out_of_sync));
  put (&object, "progress", g_variant_new_double (progress (leg)));
  put (&object, "reason", string_or_null (leg->reason));
  put (&object, "by_user", g_variant_new_boolean (leg->by_user));
  return g_variant_builder_end (&object);
}

static GVariant *
legs_as_variant (const struct dm_mirror_status *status)
{
  GVariantBuilder array;
  unsigned int i;

  g_variant_builder_init (&array, G_VARIANT_TYPE ("aa{sv}"));
  for (i = 0; i < status->num_legs; i++)
    g_variant_builder_add_value (&array,
                                 leg_as_variant (i, &status->legs[i]));
  return g_variant_builder_end (&array);
}

static GVariant *
copy_as_variant (const struct dm_log_copy_status *copy)
{
  GVariantBuilder object;

  g_variant_builder_init (&object, G_VARIANT_TYPE_VARDICT);
  put (&object, "number", g_variant_new_uint32 (copy->number));
  put (&object, "place", copy->place != NULL ? message_name (copy->place) :
       string_or_null (NULL));
  put (&object, "in_use", g_variant_new_boolean (copy->in_use));
  return g_variant_builder_end (&object);
}

static GVariant *
log_as_variant (const struct dm_mirror_status *status)
{
  GVariantBuilder object, places;
  unsigned int i;

  g_variant_builder_init (&places, G_VARIANT_TYPE ("aa{sv}"));
  for (i = 0; i < status->log_copies_all; i++)
    g_variant_builder_add_value (&places,
                                 copy_as_variant (&status->copies[i]));
  g_variant_builder_init (&object, G_VARIANT_TYPE_VARDICT);
  put (&object, "copies", g_variant_new_uint32 (status->log_copies));
  put (&object, "all", g_variant_new_uint32 (status->log_copies_all));
  put (&object, "places", g_variant_builder_end (&places));
  return g_variant_builder_end (&object);
}

static GVariant *
status_as_variant (struct dm_mirror *mirror)
{
  struct dm_mirror_status status;
  GVariantBuilder object;

  dm_mirror_get_status (mirror, &status);
  g_variant_builder_init (&object, G_VARIANT_TYPE_VARDICT);
  put (&object, "uuid", string_or_null (status.uuid));
  put (&object, "size", g_variant_new_uint64 (status.size));
  put (&object, "chunk_size", g_variant_new_uint64 (status.chunk));
  put (&object, "quorum", g_variant_new_uint32 (status.quorum));
  put (&object, "legs", legs_as_variant (&status));
  put (&object, "in_sync", g_variant_new_uint32 (status.in_sync));
  put (&object, "degraded",
       g_variant_new_boolean (status.in_sync < status.num_legs));
  put (&object, "to_reconcile", g_variant_new_uint64 (status.to_reconcile));
  put (&object, "rate", g_variant_new_uint64 (status.rate));
  put (&object, "log", log_as_variant (&status));
  dm_mirror_status_clear (&status);
  return g_variant_builder_end (&object);
}

static void
method_status (struct control *control, struct rpc_call *call,
               GVariant *params)
{
  rpc_reply (call, status_as_variant (control->mirror));
}

/*----------------------------------------------------------------------
 * wait
 */

struct wait {
  struct rpc_call *call;
  gint64 until;                 /* G_MAXINT64: for ever */
};

static void
answer_late (struct control *control, struct rpc_call *call)
{
  struct dm_mirror_status status;

  dm_mirror_get_status (control->mirror, &status);
  rpc_error (call, RPC_FAILED, "not in sync yet: %u of %u legs are, and %"
             PRIu64 " bytes are to be reconciled", status.in_sync,
             status.num_legs, status.to_reconcile);
  dm_mirror_status_clear (&status);
}

/* True if the wait has ended. */
static bool
try_to_answer (struct control *control, struct wait *wait, bool in_sync)
{
  if (in_sync)
    rpc_reply (wait->call, status_as_variant (control->mirror));
  else if (rpc_is_gone (wait->call))
    rpc_error (wait->call, RPC_FAILED, "gone");
  else if (g_get_monotonic_time () >= wait->until)
    answer_late (control, wait->call);
  else
    return false;
  return true;
}

/* Answering one may let a new one in, so the list is taken first. */
static void
look_at_waits (struct control *control)
{
  bool in_sync = dm_mirror_is_in_sync (control->mirror);
  GList *waits = g_steal_pointer (&control->waits), *l;

  for (l = waits; l != NULL; l = l->next) {
    if (try_to_answer (control, l->data, in_sync))
      g_free (l->data);
    else
      control->waits = g_list_prepend (control->waits, l->data);
  }
  g_list_free (waits);
}

static gboolean
on_look (gpointer arg)
{
  struct control *control = arg;

  look_at_waits (control);
  if (control->waits != NULL)
    return G_SOURCE_CONTINUE;
  g_clear_pointer (&control->look, g_source_unref);
  return G_SOURCE_REMOVE;
}

static bool
parse_timeout (GVariant *params, gint64 *until)
{
  g_autoptr (GVariant) value = g_variant_lookup_value (params, "timeout", NULL);
  double seconds;

  *until = G_MAXINT64;
  if (value == NULL)
    return true;
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_INT64))
    seconds = g_variant_get_int64 (value);
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE))
    seconds = g_variant_get_double (value);
  else
    return false;
  if (!(seconds >= 0))
    return false;
  if (seconds < INT32_MAX)
    *until = g_get_monotonic_time () + (gint64) (seconds * G_USEC_PER_SEC);
  return true;
}

static void
method_wait (struct control *control, struct rpc_call *call,
             GVariant *params)
{
  struct wait *wait;
  gint64 until;

  if (!parse_timeout (params, &until)) {
    rpc_error (call, RPC_INVALID_PARAMS, "timeout must be a number of "
               "seconds");
    return;
  }
  if (dm_mirror_is_in_sync (control->mirror)) {
    rpc_reply (call, status_as_variant (control->mirror));
    return;
  }
  wait = g_new (struct wait, 1);
  *wait = (struct wait) { .call = call, .until = until };
  control->waits = g_list_prepend (control->waits, wait);
  if (control->look != NULL)
    return;
  control->look = g_timeout_source_new (LOOK_INTERVAL);
  g_source_set_callback (control->look, on_look, control, NULL);
  g_source_attach (control->look, control->context);
}

/*----------------------------------------------------------------------
 * fail and add: jobs with a thread of their own
 */

struct job {
  struct job *next;             /* that has ended */
  struct control *control;
  struct rpc_call *call;
  pthread_t thread;
  char *leg;                    /* a number or a SPEC */
  enum dm_mirror_add add;
  int (*run) (struct job *job);
  int number;                   /* what run returned */
  char *error;                  /* of run, if that is negative */
};

static void
wake (struct control *control)
{
  uint64_t one = 1;

  while (write (control->wake_fd, &one, sizeof one) == -1 && errno == EINTR)
    ;
}

static void *
job_thread (void *arg)
{
  struct job *job = arg;
  struct control *control = job->control;

  job->number = job->run (job);
  pthread_mutex_lock (&control->lock);
  job->next = control->ended;
  control->ended = job;
  pthread_mutex_unlock (&control->lock);
  wake (control);
  return NULL;
}

static void
free_job (struct job *job)
{
  g_free (job->error);
  g_free (job->leg);
  g_free (job);
}

static void
end_job (struct control *control, struct job *job)
{
  pthread_join (job->thread, NULL);
  if (job->number >= 0)
    rpc_reply (job->call, status_as_variant (control->mirror));
  else
    rpc_error (job->call, RPC_FAILED, "%s", job->error);
  free_job (job);
}

/* The parameter leg, as a string; NULL if there is none. */
static char *
parse_leg (GVariant *params)
{
  g_autoptr (GVariant) value = g_variant_lookup_value (params, "leg", NULL);

  if (value == NULL)
    return NULL;
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_INT64))
    return g_strdup_printf ("%" PRIi64, g_variant_get_int64 (value));
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_STRING))
    return escape_undo (g_variant_get_string (value, NULL));
  return NULL;
}

static void
start_job (struct control *control, struct rpc_call *call, GVariant *params,
           int (*run) (struct job *job))
{
  char *leg = parse_leg (params);
  gboolean full = FALSE, overwrite = FALSE;
  struct job *job;

  if (leg == NULL) {
    rpc_error (call, RPC_INVALID_PARAMS, "leg must be the number or the SPEC "
               "of a leg");
    return;
  }
  g_variant_lookup (params, "full", "b", &full);
  g_variant_lookup (params, "overwrite", "b", &overwrite);
  job = g_new0 (struct job, 1);
  *job = (struct job) {
    .control = control, .call = call, .leg = leg, .run = run,
    .add = overwrite ? DM_MIRROR_ADD_OVERWRITE :
      full ? DM_MIRROR_ADD_FULL : DM_MIRROR_ADD,
  };
  if (create_thread (&job->thread, job_thread, job) == 0)
    return;
  rpc_error (call, RPC_FAILED, "the server cannot start a thread; try again");
  free_job (job);
}

static bool
has_log (struct dm_mirror *mirror)
{
  struct dm_mirror_status status;
  bool has;

  dm_mirror_get_status (mirror, &status);
  has = status.uuid != NULL;
  dm_mirror_status_clear (&status);
  return has;
}

/* The number of an existing leg, or -1. */
static int
find_leg (struct dm_mirror *mirror, const char *leg)
{
  unsigned int n = dm_mirror_num_legs (mirror);
  g_autofree char *id = NULL, *error = NULL;
  struct spec *spec;
  guint64 number;
  int found;

  if (g_ascii_string_to_unsigned (leg, 10, 0, n - 1, &number, NULL))
    return number;
  found = dm_mirror_find_leg (mirror, leg);
  if (found >= 0 || (spec = spec_parse_region (leg, &error)) == NULL)
    return found;
  id = spec_id (spec);
  spec_unref (spec);
  return dm_mirror_find_leg (mirror, id);
}

static char *
why_not_failed (int err, const char *leg)
{
  if (err == EBUSY)
    return g_strdup_printf ("region '%s' is the last in sync: it holds what "
                            "no other does; add another first, and wait "
                            "until that is in sync", leg);
  return g_strdup_printf ("region '%s': that cannot be recorded in the log: "
                          "%s", leg, g_strerror (err));
}

static int
run_fail (struct job *job)
{
  struct dm_mirror *mirror = job->control->mirror;
  int leg = find_leg (mirror, job->leg), r;

  if (leg < 0) {
    job->error = g_strdup_printf ("there is no leg '%s'; status shows the "
                                  "legs: give a number, or a SPEC as it is "
                                  "there", job->leg);
    return -1;
  }
  r = dm_mirror_fail (mirror, leg);
  if (r < 0)
    job->error = why_not_failed (-r, job->leg);
  return r;
}

static int
run_add (struct job *job)
{
  return legs_add (job->control->legs, job->control->mirror, job->leg,
                   job->add, &job->error);
}

static void
change_legs (struct control *control, struct rpc_call *call, GVariant *params,
             int (*run) (struct job *job))
{
  if (has_log (control->mirror))
    start_job (control, call, params, run);
  else
    rpc_error (call, RPC_FAILED, "this mirror has no log (log=none), so "
               "what a leg misses could not be remembered");
}

static void
method_fail (struct control *control, struct rpc_call *call,
             GVariant *params)
{
  change_legs (control, call, params, run_fail);
}

static void
method_add (struct control *control, struct rpc_call *call, GVariant *params)
{
  change_legs (control, call, params, run_add);
}

/*----------------------------------------------------------------------
 * The thread
 */

static const struct {
  const char *name;
  method_fn run;
} methods[] = {
  { "status", method_status },
  { "wait", method_wait },
  { "fail", method_fail },
  { "add", method_add },
};

static void
on_call (void *arg, struct rpc_call *call, const char *method,
         GVariant *params)
{
  g_autoptr (GVariant) object = params != NULL ? g_variant_ref (params) :
    g_variant_ref_sink (g_variant_new_parsed ("@a{sv} {}"));
  size_t i;

  if (!g_variant_is_of_type (object, G_VARIANT_TYPE_VARDICT)) {
    rpc_error (call, RPC_INVALID_PARAMS, "params must be an object");
    return;
  }
  for (i = 0; i < G_N_ELEMENTS (methods); i++)
    if (strcmp (method, methods[i].name) == 0) {
      methods[i].run (arg, call, object);
      return;
    }
  rpc_error (call, RPC_NO_SUCH_METHOD, "there is no method '%s'; there are "
             "status, wait, fail and add", method);
}

/* Who waits gets no answer, as the connection is closed. */
static void
begin_to_stop (struct control *control)
{
  control->stopping = true;
  rpc_close (control->rpc);
  look_at_waits (control);
  if (control->look != NULL) {
    g_source_destroy (control->look);
    g_clear_pointer (&control->look, g_source_unref);
  }
}

static gboolean
on_wake (gint fd, GIOCondition condition, gpointer arg)
{
  struct control *control = arg;
  struct job *ended, *next;
  uint64_t count;
  bool stop;

  if (read (fd, &count, sizeof count) == -1)
    return G_SOURCE_CONTINUE;
  pthread_mutex_lock (&control->lock);
  ended = g_steal_pointer (&control->ended);
  stop = control->stop;
  pthread_mutex_unlock (&control->lock);

  for (; ended != NULL; ended = next) {
    next = ended->next;
    end_job (control, ended);
  }
  if (stop && !control->stopping)
    begin_to_stop (control);
  return G_SOURCE_CONTINUE;
}

static void *
control_thread (void *arg)
{
  struct control *control = arg;
  GSource *source = g_unix_fd_source_new (control->wake_fd, G_IO_IN);

  control->context = g_main_context_new ();
  g_main_context_push_thread_default (control->context);
  g_source_set_callback (source, G_SOURCE_FUNC (on_wake), control, NULL);
  g_source_attach (source, control->context);
  control->rpc = rpc_new (control->fd, on_call, control);
  while (!control->stopping || rpc_is_busy (control->rpc))
    g_main_context_iteration (control->context, TRUE);

  rpc_free (control->rpc);
  g_source_destroy (source);
  g_source_unref (source);
  g_main_context_pop_thread_default (control->context);
  g_main_context_unref (control->context);
  return NULL;
}

static void
free_control (struct control *control)
{
  close (control->wake_fd);
  pthread_mutex_destroy (&control->lock);
  g_free (control);
}

int
control_start (struct control_socket *socket, struct dm_mirror *mirror,
               struct legs *legs, struct control **result)
{
  int wake_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK), err;
  struct control *control;

  if (wake_fd == -1)
    return -errno;
  control = g_new0 (struct control, 1);
  control->mirror = mirror;
  control->legs = legs;
  control->fd = control_socket_fd (socket);
  control->wake_fd = wake_fd;
  pthread_mutex_init (&control->lock, NULL);
  err = create_thread (&control->thread, control_thread, control);
  if (err == 0) {
    *result = control;
    return 0;
  }
  free_control (control);
  return -err;
}

void
control_stop (struct control *control)
{
  if (control == NULL)
    return;
  pthread_mutex_lock (&control->lock);
  control->stop = true;
  pthread_mutex_unlock (&control->lock);
  wake (control);
  pthread_join (control->thread, NULL);
  free_control (control);
}
