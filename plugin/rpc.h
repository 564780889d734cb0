/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A server for JSON-RPC 2.0, each message after a Content-Length header as in
 * the Language Server Protocol.
 *
 * All of it is used in one thread, with the main context that is its
 * thread-default context.
 */

#ifndef DMIO_RPC_H
#define DMIO_RPC_H

#include <stdbool.h>

#include <glib.h>

struct rpc;

/* A request that has to be answered, once. */
struct rpc_call;

/* Codes of errors. */
enum {
  RPC_PARSE_ERROR = -32700,
  RPC_INVALID_REQUEST = -32600,
  RPC_NO_SUCH_METHOD = -32601,
  RPC_INVALID_PARAMS = -32602,
  RPC_FAILED = -32000,          /* it was understood, and cannot be done */
};

/* Called for each request.  PARAMS is NULL if there are none. */
typedef void (*rpc_handler) (void *context, struct rpc_call *call,
                             const char *method, GVariant *params);

/* Accept connections on a listening socket, which has to stay open. */
extern struct rpc *rpc_new (int fd, rpc_handler handler, void *context);

/* Accept no more, and end all connections; calls have still to be answered,
 * and the context to be iterated until that returns false.
 */
extern void rpc_close (struct rpc *rpc);
extern bool rpc_is_busy (const struct rpc *rpc);
/* When it is not busy any more. */
extern void rpc_free (struct rpc *rpc);

/* Answer, and free the call.  RESULT may be floating. */
extern void rpc_reply (struct rpc_call *call, GVariant *result);
extern void rpc_error (struct rpc_call *call, int code, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 3, 4)));

/* True if the client will not read the answer. */
extern bool rpc_is_gone (const struct rpc_call *call);

#endif /* DMIO_RPC_H */
