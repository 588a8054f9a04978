/* Signatures in C: the twin of pure_mac.py.

   What a signature takes here is two copies of saved states and a call of libcrypto for each frame, without an object of
   Python in between. `use_libcrypto` comes first. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loaded_library.h"

#define DIGEST_BYTES 32
#define BLOCK_BYTES 64
#define LENGTH_BYTES 4
/* From this size on, a frame is hashed without the GIL, as hashlib does: other threads go on. */
#define LONG_BYTES 65536

/* SHA256_CTX has 112 bytes and no pointers, so it can be copied; the others are for a libcrypto that has more. */
typedef union {
    unsigned char bytes[256];
    unsigned long long aligned;
} Hash;

static int (*sha256_init)(Hash *);
static int (*sha256_update)(Hash *, const void *, size_t);
static int (*sha256_final)(unsigned char *, Hash *);
static int (*constant_time_compare)(const void *, const void *, size_t);
static void (*cleanse)(void *, size_t);

static PyObject *
use_libcrypto(PyObject *Py_UNUSED(module), PyObject *path)
{
    const Symbol symbols[] = {
        {"SHA256_Init", &sha256_init},       {"SHA256_Update", &sha256_update},
        {"SHA256_Final", &sha256_final},     {"CRYPTO_memcmp", &constant_time_compare},
        {"OPENSSL_cleanse", &cleanse},       {NULL, NULL},
    };
    const char *text = PyUnicode_AsUTF8(path);
    if (text == NULL || look_up(text, symbols) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

typedef struct {
    PyObject_HEAD
    Hash inner, outer; /* the states after the key's two pads, from which each signature starts */
} Mac;

static int
start(Hash *hash, const unsigned char *key, Py_ssize_t size, unsigned char pad)
{
    unsigned char block[BLOCK_BYTES];
    memset(block, pad, sizeof block);
    for (Py_ssize_t at = 0; at < size; at++) {
        block[at] ^= key[at];
    }
    int is_done = sha256_init(hash) && sha256_update(hash, block, sizeof block);
    cleanse(block, sizeof block);
    return is_done;
}

static PyObject *
mac_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    Py_buffer key;
    if (cleanse == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "use_libcrypto comes first");
        return NULL;
    }
    if (keywords != NULL && PyDict_GET_SIZE(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Mac takes one key, by position");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "y*:Mac", &key)) {
        return NULL;
    }
    Mac *self = NULL;
    if (key.len > BLOCK_BYTES) {
        PyErr_Format(PyExc_ValueError, "a key has %d bytes at most, this one %zd", BLOCK_BYTES, key.len);
    }
    else if ((self = (Mac *)type->tp_alloc(type, 0)) != NULL &&
             !(start(&self->inner, key.buf, key.len, 0x36) && start(&self->outer, key.buf, key.len, 0x5c))) {
        PyErr_SetString(PyExc_RuntimeError, "libcrypto refuses SHA-256");
        Py_CLEAR(self);
    }
    PyBuffer_Release(&key);
    return (PyObject *)self;
}

static void
mac_dealloc(Mac *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cleanse(&self->inner, sizeof self->inner);
    cleanse(&self->outer, sizeof self->outer);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Hash an object's bytes, with their length before them if `has_length`. */
static int
hash_bytes(Hash *hash, PyObject *part, int has_length)
{
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (has_length) {
        if ((unsigned long long)view.len > 0xffffffffULL) {
            PyErr_SetString(PyExc_OverflowError, "a frame has less than 4 GiB");
            PyBuffer_Release(&view);
            return -1;
        }
        unsigned char length[LENGTH_BYTES] = {(unsigned char)(view.len >> 24), (unsigned char)(view.len >> 16),
                                              (unsigned char)(view.len >> 8), (unsigned char)view.len};
        sha256_update(hash, length, sizeof length);
    }
    if (view.len < LONG_BYTES) {
        sha256_update(hash, view.buf, (size_t)view.len);
    }
    else { /* the view keeps the frame */
        Py_BEGIN_ALLOW_THREADS
        sha256_update(hash, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    return 0;
}

static int
digest(const Mac *self, PyObject *label, PyObject *sequence, unsigned char *result)
{
    PyObject *frames = PySequence_Tuple(sequence); /* a list might change while a long frame is hashed */
    if (frames == NULL) {
        return -1;
    }
    Hash hash = self->inner;
    int failed = hash_bytes(&hash, label, 0);
    for (Py_ssize_t at = 0; !failed && at < PyTuple_GET_SIZE(frames); at++) {
        failed = hash_bytes(&hash, PyTuple_GET_ITEM(frames, at), 1);
    }
    Py_DECREF(frames);
    if (failed) {
        return -1;
    }
    sha256_final(result, &hash);
    hash = self->outer;
    sha256_update(&hash, result, DIGEST_BYTES);
    sha256_final(result, &hash);
    return 0;
}

static PyObject *
mac_sign(Mac *self, PyObject *const *args, Py_ssize_t count)
{
    unsigned char result[DIGEST_BYTES];
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "sign takes a label and frames");
        return NULL;
    }
    if (digest(self, args[0], args[1], result) < 0) {
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)result, sizeof result);
}

static PyObject *
mac_verifies(Mac *self, PyObject *const *args, Py_ssize_t count)
{
    unsigned char result[DIGEST_BYTES];
    Py_buffer signature;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "verifies takes a label, a signature and frames");
        return NULL;
    }
    if (PyObject_GetBuffer(args[1], &signature, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int failed = 0, is_right = 0;
    if (signature.len == DIGEST_BYTES && !(failed = digest(self, args[0], args[2], result))) {
        is_right = constant_time_compare(signature.buf, result, DIGEST_BYTES) == 0;
    }
    PyBuffer_Release(&signature);
    return failed ? NULL : PyBool_FromLong(is_right);
}

static PyMethodDef mac_methods[] = {
    {"sign", (PyCFunction)(void (*)(void))mac_sign, METH_FASTCALL,
     "Return the HMAC-SHA256 of a label and of frames, each with its length before it."},
    {"verifies", (PyCFunction)(void (*)(void))mac_verifies, METH_FASTCALL,
     "Return True if a signature is that of frames under a label; compare in constant time."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot mac_slots[] = {
    {Py_tp_doc, "The MACs of one key, from the saved states of its two pads."},
    {Py_tp_new, mac_new},
    {Py_tp_dealloc, mac_dealloc},
    {Py_tp_methods, mac_methods},
    {0, NULL},
};

static PyType_Spec mac_spec = {
    .name = "backtestr_protocol.wire._mac.Mac",
    .basicsize = sizeof(Mac),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = mac_slots,
};

static PyMethodDef functions[] = {
    {"use_libcrypto", use_libcrypto, METH_O, "Take SHA-256 from the library that Python's hashlib has loaded."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_mac",
    .m_doc = "Signatures in C; compiled.py loads this module.",
    .m_size = -1, /* what it looked up is the process's: no subinterpreter has its own */
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__mac(void)
{
    PyObject *made = PyModule_Create(&module);
    PyObject *type = made == NULL ? NULL : PyType_FromSpec(&mac_spec);
    if (type == NULL || PyModule_AddObjectRef(made, "Mac", type) < 0) {
        Py_CLEAR(made);
    }
    Py_XDECREF(type);
    return made;
}
