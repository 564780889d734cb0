/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
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

/* One that was free just now. */
static unsigned int
free_port (void)
{
  struct sockaddr_in addr = {
    .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK),
  };
  socklen_t length = sizeof addr;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_cmpint (bind (fd, (struct sockaddr *) &addr, length), ==, 0);
  g_assert_cmpint (getsockname (fd, (struct sockaddr *) &addr, &length), ==,
                   0);
  close (fd);
  return ntohs (addr.sin_port);
}

static void
await_pidfile (struct nbdkit_server *server, const char *pidfile)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  int status;

  while (!g_file_test (pidfile, G_FILE_TEST_EXISTS)) {
    g_assert_false (has_ended (server, &status));
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (POLL_US);
  }
  g_assert_cmpint (g_unlink (pidfile), ==, 0);
}

static void
add_args (GPtrArray *argv, ...)
{
  const char *arg;
  va_list args;

  va_start (args, argv);
  while ((arg = va_arg (args, const char *)) != NULL)
    g_ptr_array_add (argv, g_strdup (arg));
  va_end (args);
}

static GPtrArray *
command_of (const struct nbdkit_server *server, const char *pidfile)
{
  g_autofree char *file = g_strconcat ("file=", server->file, NULL);
  g_autofree char *fail = g_strconcat ("error-file=", server->fail, NULL);
  g_autofree char *size =
    g_strdup_printf ("blocksize-minimum=%u", server->block_size);
  g_autofree char *port = g_strdup_printf ("%u", server->port);
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);

  add_args (argv, "nbdkit", "-f", "--exit-with-parent", "-P", pidfile, NULL);
  if (server->tcp)
    add_args (argv, "-i", "127.0.0.1", "-p", port, NULL);
  else
    add_args (argv, "-U", server->socket, NULL);
  if (server->write_back)
    add_args (argv, "--filter=cache", NULL);
  add_args (argv, "--filter=error", "--filter=blocksize-policy", "file", file,
            "error=EIO", "error-rate=100%", fail, size,
            "blocksize-error-policy=error", NULL);
  if (server->write_back)
    add_args (argv, "cache=writeback", NULL);
  g_ptr_array_add (argv, NULL);
  return argv;
}

void
nbdkit_server_restart (struct nbdkit_server *server)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *pidfile = g_strconcat (server->file, ".pid", NULL);
  g_autoptr (GPtrArray) argv = command_of (server, pidfile);
  GPid pid;

  if (!g_spawn_async (NULL, (char **) argv->pdata, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                      NULL, &pid, &error))
    g_error ("%s", error->message);
  server->pid = pid;
  await_pidfile (server, pidfile);
}

void
nbdkit_server_start (struct nbdkit_server *server, const char *file,
                     unsigned int block_size)
{
  server->file = g_strdup (file);
  server->block_size = block_size;
  server->fail = g_strconcat (file, ".fail", NULL);
  if (server->tcp) {
    server->port = free_port ();
    server->uri = g_strdup_printf ("nbd://127.0.0.1:%u", server->port);
  }
  else {
    server->socket = g_strconcat (file, ".socket", NULL);
    server->uri = g_strconcat ("nbd+unix:///?socket=", server->socket, NULL);
  }
  nbdkit_server_restart (server);
}

/* Let it end by the signal.  Returns its status. */
static int
end_by (struct nbdkit_server *server, int signal)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  int status;

  kill (server->pid, signal);
  while (!has_ended (server, &status)) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (POLL_US);
  }
  server->pid = 0;
  if (server->socket != NULL)
    g_assert_cmpint (g_unlink (server->socket), ==, 0);
  return status;
}

void
nbdkit_server_pause (struct nbdkit_server *server)
{
  int status;

  kill (server->pid, SIGSTOP);
  g_assert_cmpint (waitpid (server->pid, &status, WUNTRACED), ==,
                   server->pid);
  g_assert_true (WIFSTOPPED (status));
}

void
nbdkit_server_continue (struct nbdkit_server *server)
{
  kill (server->pid, SIGCONT);
}

void
nbdkit_server_kill (struct nbdkit_server *server)
{
  g_assert_cmpint (end_by (server, SIGKILL), ==, SIGKILL);
}

void
nbdkit_server_stop (struct nbdkit_server *server)
{
  if (server->pid != 0)
    g_assert_cmpint (end_by (server, SIGTERM), ==, 0);
  g_clear_pointer (&server->file, g_free);
  g_clear_pointer (&server->socket, g_free);
  g_clear_pointer (&server->uri, g_free);
  g_clear_pointer (&server->fail, g_free);
}
