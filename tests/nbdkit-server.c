/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <signal.h>
#include <sys/wait.h>

#include <glib/gstdio.h>

#include "nbdkit-server.h"
#include "test-util.h"

#define POLL_US 5000

/* True if it has ended, with *STATUS. */
static bool
has_ended (const struct nbdkit_server *server, int *status)
{
  pid_t r = waitpid (server->pid, status, WNOHANG);

  g_assert_cmpint (r, >=, 0);
  return r == server->pid;
}

void
nbdkit_server_start (struct nbdkit_server *server, const char *file,
                     unsigned int block_size)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *pidfile = g_strconcat (file, ".pid", NULL);
  g_autofree char *file_arg = g_strconcat ("file=", file, NULL);
  g_autofree char *fail_arg = NULL;
  g_autofree char *size_arg =
    g_strdup_printf ("blocksize-minimum=%u", block_size);
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  GPid pid;
  int status;

  server->socket = g_strconcat (file, ".socket", NULL);
  server->fail = g_strconcat (file, ".fail", NULL);
  server->uri = g_strconcat ("nbd+unix:///?socket=", server->socket, NULL);
  fail_arg = g_strconcat ("error-file=", server->fail, NULL);
  const char *argv[] = {
    "nbdkit", "-f", "--exit-with-parent", "-U", server->socket, "-P", pidfile,
    "--filter=error", "--filter=blocksize-policy", "file", file_arg,
    "error=EIO", "error-rate=100%", fail_arg,
    size_arg, "blocksize-error-policy=error", NULL,
  };

  if (!g_spawn_async (NULL, (char **) argv, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                      NULL, &pid, &error))
    g_error ("%s", error->message);
  server->pid = pid;
  while (!g_file_test (pidfile, G_FILE_TEST_EXISTS)) {
    g_assert_false (has_ended (server, &status));
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (POLL_US);
  }
  g_assert_cmpint (g_unlink (pidfile), ==, 0);
}

void
nbdkit_server_stop (struct nbdkit_server *server)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  int status;

  if (server->pid == 0)
    return;
  kill (server->pid, SIGTERM);
  while (!has_ended (server, &status)) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (POLL_US);
  }
  g_assert_cmpint (status, ==, 0);
  server->pid = 0;
  g_assert_cmpint (g_unlink (server->socket), ==, 0);
  g_free (server->socket);
  g_free (server->uri);
  g_free (server->fail);
}
