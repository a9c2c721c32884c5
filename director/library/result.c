/* Results: the public handles are the protobuf messages themselves, seen through casts. */
#include <director/client.h>

#include <proto/director.pb-c.h>
#include <string.h>

static const Director__Result *result_of(const struct director_result *result)
{
    return (const Director__Result *)result;
}

static const Director__Object *object_of(const struct director_object *object)
{
    return (const Director__Object *)object;
}

static const Director__Property *property_of(const struct director_property *property)
{
    return (const Director__Property *)property;
}

void director_result_free(struct director_result *result)
{
    if (result)
        director__result__free_unpacked((Director__Result *)result, NULL);
}

const char *director_result_message(const struct director_result *result)
{
    return result_of(result)->message;
}

size_t director_result_line_count(const struct director_result *result)
{
    return result_of(result)->n_lines;
}

const char *director_result_line(const struct director_result *result, size_t index)
{
    return index < result_of(result)->n_lines ? result_of(result)->lines[index] : NULL;
}

size_t director_result_object_count(const struct director_result *result)
{
    return result_of(result)->n_objects;
}

const struct director_object *director_result_object(const struct director_result *result, size_t index)
{
    if (index >= result_of(result)->n_objects)
        return NULL;
    return (const struct director_object *)result_of(result)->objects[index];
}

const char *director_object_path(const struct director_object *object)
{
    return object_of(object)->path;
}

const char *director_object_kind(const struct director_object *object)
{
    return object_of(object)->kind;
}

const char *director_object_summary(const struct director_object *object)
{
    return object_of(object)->summary;
}

int director_object_has_children(const struct director_object *object)
{
    return object_of(object)->has_children;
}

int director_object_deleted(const struct director_object *object)
{
    return object_of(object)->deleted;
}

int director_object_destructive(const struct director_object *object)
{
    return object_of(object)->destructive;
}

size_t director_object_property_count(const struct director_object *object)
{
    return object_of(object)->n_properties;
}

const struct director_property *director_object_property(const struct director_object *object, size_t index)
{
    if (index >= object_of(object)->n_properties)
        return NULL;
    return (const struct director_property *)object_of(object)->properties[index];
}

const char *director_object_value(const struct director_object *object, const char *name)
{
    for (size_t i = 0; i < object_of(object)->n_properties; i++)
        if (strcmp(object_of(object)->properties[i]->name, name) == 0)
            return object_of(object)->properties[i]->value;
    return NULL;
}

const char *director_property_name(const struct director_property *property)
{
    return property_of(property)->name;
}

const char *director_property_value(const struct director_property *property)
{
    return property_of(property)->value;
}

const char *director_property_type(const struct director_property *property)
{
    return property_of(property)->type;
}

const char *director_property_help(const struct director_property *property)
{
    return property_of(property)->help;
}

const char *director_property_default(const struct director_property *property)
{
    return property_of(property)->default_text;
}

int director_property_writable(const struct director_property *property)
{
    return property_of(property)->writable;
}

int director_property_required(const struct director_property *property)
{
    return property_of(property)->required;
}

const char *director_property_choice(const struct director_property *property, size_t index)
{
    return index < property_of(property)->n_choices ? property_of(property)->choices[index] : NULL;
}
