/* Functions of a library that this process has loaded, found by their names.

   pyzmq and hashlib have libraries of their own, often in their wheels. To use those very copies, and no headers, the
   compiled modules look in the module of Python that has loaded one, and in what that module needs. */

#include <dlfcn.h>
#include <string.h>

typedef struct {
    const char *name;
    void *place; /* the pointer that gets the function's address */
} Symbol;

/* Look up functions in a library that is loaded, and in those that it needs: all of them, or none is stored. */
static int
look_up(const char *path, const Symbol *symbols)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD); /* never closed: its functions are kept */
    if (library == NULL) {
        PyErr_Format(PyExc_ImportError, "%s is not loaded", path);
        return -1;
    }
    for (const Symbol *one = symbols; one->name != NULL; one++) {
        if (dlsym(library, one->name) == NULL) {
            PyErr_Format(PyExc_ImportError, "%s has no %s", path, one->name);
            return -1;
        }
    }
    for (const Symbol *one = symbols; one->name != NULL; one++) {
        void *found = dlsym(library, one->name);
        memcpy(one->place, &found, sizeof found);
    }
    return 0;
}
