/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib.h>

#include "control-socket.h"
#include "log.h"

#define BACKLOG 128

struct control_socket {
  int fd;
  char *path;
  dev_t dev;
  ino_t ino;
};

static struct sockaddr_un
address_of (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  return address;
}

static int
new_socket (void)
{
  return socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* On Linux the mode of the descriptor becomes that of the file, so nobody else
 * can connect at any time.
 */
static int
bind_private (int fd, const char *path)
{
  struct sockaddr_un address = address_of (path);

  if (fchmod (fd, S_IRUSR | S_IWUSR) == -1)
    return -1;
  return bind (fd, (struct sockaddr *) &address, sizeof address);
}

/* Nobody listens there any more. */
static bool
is_stale (const char *path)
{
  struct sockaddr_un address = address_of (path);
  int fd = new_socket ();
  bool stale;

  stale = fd != -1 &&
    connect (fd, (struct sockaddr *) &address, sizeof address) == -1 &&
    errno == ECONNREFUSED;
  if (fd != -1)
    close (fd);
  return stale;
}

static bool
is_socket (const char *path)
{
  struct stat st;

  return lstat (path, &st) == 0 && S_ISSOCK (st.st_mode);
}

/* Returns what bind does. */
static int
bind_or_replace (int fd, const char *path)
{
  if (bind_private (fd, path) == 0)
    return 0;
  if (errno != EADDRINUSE)
    return -1;
  if (is_socket (path) && is_stale (path) && unlink (path) == 0)
    return bind_private (fd, path);
  errno = EADDRINUSE;
  return -1;
}

static void
report (const char *path, int err)
{
  if (err != EADDRINUSE)
    report_error ("control=%s: cannot make the socket: %s; its directory has "
                  "to exist, and to be writable", path, strerror (err));
  else if (is_socket (path))
    report_error ("control=%s: another server uses this socket; stop it, or "
                  "name another socket", path);
  else
    report_error ("control=%s: exists and is not a socket; name another path",
                  path);
}

struct control_socket *
control_socket_new (const char *path)
{
  struct control_socket *s;
  struct stat st;
  int fd = new_socket (), err;

  if (fd == -1 || bind_or_replace (fd, path) == -1 ||
      listen (fd, BACKLOG) == -1 || lstat (path, &st) == -1) {
    err = errno;
    if (fd != -1)
      close (fd);
    report (path, err);
    return NULL;
  }
  s = g_new (struct control_socket, 1);
  *s = (struct control_socket) {
    .fd = fd, .path = g_strdup (path), .dev = st.st_dev, .ino = st.st_ino,
  };
  return s;
}

int
control_socket_fd (const struct control_socket *s)
{
  return s->fd;
}

void
control_socket_free (struct control_socket *s)
{
  struct stat st;

  if (s == NULL)
    return;
  if (lstat (s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
    unlink (s->path);
  close (s->fd);
  g_free (s->path);
  g_free (s);
}
