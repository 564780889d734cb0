/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <stdbool.h>
#include <string.h>

#include <json-glib/json-glib.h>

#include "escape.h"
#include "message.h"

/* It would get into a message as it is, since json-glib escapes only what is
 * below.
 */
#define UNESCAPED '\x1f'

static bool is_sound (JsonNode *node);

static bool
string_is_sound (const char *s)
{
  return g_utf8_validate (s, -1, NULL) && strchr (s, UNESCAPED) == NULL;
}

static bool
array_is_sound (JsonArray *array)
{
  guint i;

  for (i = 0; i < json_array_get_length (array); i++)
    if (!is_sound (json_array_get_element (array, i)))
      return false;
  return true;
}

static bool
object_is_sound (JsonObject *object)
{
  JsonObjectIter iter;
  const char *key;
  JsonNode *value;

  json_object_iter_init (&iter, object);
  while (json_object_iter_next (&iter, &key, &value))
    if (!string_is_sound (key) || !is_sound (value))
      return false;
  return true;
}

/* Half a surrogate pair, as in "\ud800", gets through the parser, and then the
 * library crashes as it makes a GVariant of that.
 */
static bool
is_sound (JsonNode *node)
{
  switch (json_node_get_node_type (node)) {
  case JSON_NODE_OBJECT:
    return object_is_sound (json_node_get_object (node));
  case JSON_NODE_ARRAY:
    return array_is_sound (json_node_get_array (node));
  case JSON_NODE_VALUE:
    return json_node_get_value_type (node) != G_TYPE_STRING ||
      string_is_sound (json_node_get_string (node));
  default:
    return true;
  }
}

GVariant *
message_parse (const char *text, size_t length, char **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) problem = NULL;
  GVariant *message = NULL;
  JsonNode *root = NULL;

  if (json_parser_load_from_data (parser, text, length, &problem))
    root = json_parser_get_root (parser);
  if (root != NULL && is_sound (root))
    message = json_gvariant_deserialize (root, NULL, &problem);
  if (message != NULL)
    return g_variant_take_ref (message);
  *error = g_strdup (problem != NULL ? problem->message :
                     root == NULL ? "nothing there" : "a string that is not UTF-8");
  return NULL;
}

GVariant *
message_string (const char *s)
{
  return g_variant_new_take_string (escape_line (s));
}

GVariant *
message_name (const char *name)
{
  return g_variant_new_take_string (escape_name (name));
}
