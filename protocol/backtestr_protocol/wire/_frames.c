/* Frames in C: the twin of pure_frames.py.

   What a message takes here is a call of libzmq for each frame, and no object of Python but its bytes. The library is
   the one that pyzmq has loaded, and the sockets are pyzmq's. `use_libzmq` comes first. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>

#include "loaded_library.h"

enum { DONTWAIT = 1, SEND_MORE = 2, SOURCE_DESCRIPTOR = 2, POLL_IN = 1, EVENTS = 15 };
/* From this size on, pyzmq sends a frame, without a copy; a message of so many bytes ends those of one peer. */
#define LARGE_BYTES 65536

/* zmq_msg_t of libzmq 4.3: 64 bytes, aligned as a pointer. */
typedef union {
    unsigned char bytes[64];
    void *aligned;
} Frame;

static int (*msg_init)(Frame *);
static int (*msg_init_size)(Frame *, size_t);
static void *(*msg_data)(Frame *);
static size_t (*msg_size)(const Frame *);
static int (*msg_send)(Frame *, void *, int);
static int (*msg_recv)(Frame *, void *, int);
static int (*msg_close)(Frame *);
static int (*msg_more)(const Frame *);
static int (*msg_get)(const Frame *, int);
static const char *(*msg_gets)(const Frame *, const char *);
static int (*get_option)(void *, int, void *, size_t *);
static int (*last_error)(void);
static void (*version_of_library)(int *, int *, int *);

static PyObject *underlying, *again_type, *raise_error; /* a descriptor, a class, and a function that raises an errno */
static PyObject *in_accepts, *in_expecting, *in_of_one, *in_origins, *empty_text;

/* Take pyzmq's library: use_libzmq(path, (4, 3, 5), zmq.Socket.underlying, zmq.Again, raise_error). */
static PyObject *
use_libzmq(PyObject *Py_UNUSED(module), PyObject *args)
{
    const Symbol symbols[] = {
        {"zmq_msg_init", &msg_init},   {"zmq_msg_init_size", &msg_init_size}, {"zmq_msg_data", &msg_data},
        {"zmq_msg_size", &msg_size},   {"zmq_msg_send", &msg_send},           {"zmq_msg_recv", &msg_recv},
        {"zmq_msg_close", &msg_close}, {"zmq_msg_more", &msg_more},           {"zmq_msg_get", &msg_get},
        {"zmq_msg_gets", &msg_gets},   {"zmq_getsockopt", &get_option},       {"zmq_errno", &last_error},
        {"zmq_version", &version_of_library}, {NULL, NULL},
    };
    const char *path;
    int major, minor, patch, found[3];
    PyObject *descriptor, *again, *raising;
    if (!PyArg_ParseTuple(args, "s(iii)O!OO:use_libzmq", &path, &major, &minor, &patch, &PyGetSetDescr_Type, &descriptor,
                          &again, &raising) ||
        look_up(path, symbols) < 0) {
        return NULL;
    }
    version_of_library(&found[0], &found[1], &found[2]);
    if (found[0] != major || found[1] != minor || found[2] != patch) {
        return PyErr_Format(PyExc_ImportError, "libzmq %d.%d.%d was found, and pyzmq uses %d.%d.%d", found[0], found[1],
                            found[2], major, minor, patch);
    }
    Py_XSETREF(underlying, Py_NewRef(descriptor));
    Py_XSETREF(again_type, Py_NewRef(again));
    Py_XSETREF(raise_error, Py_NewRef(raising));
    Py_RETURN_NONE;
}

/* Raise pyzmq's exception for an error of libzmq. */
static void
set_error(int number)
{
    PyObject *result = PyObject_CallFunction(raise_error, "i", number);
    if (result != NULL) {
        Py_DECREF(result);
        PyErr_SetString(PyExc_SystemError, "an error of libzmq was not raised");
    }
}

/* Return True if a call was interrupted by a signal, and is to be made again: its handler raised nothing. */
static int
is_interrupted(void)
{
    return last_error() == EINTR && PyErr_CheckSignals() == 0;
}

/* Return libzmq's socket. It is valid until other code of Python runs, which may close it. */
static void *
handle_of(PyObject *socket)
{
    if (underlying == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "use_libzmq comes first");
        return NULL;
    }
    PyObject *address = Py_TYPE(underlying)->tp_descr_get(underlying, socket, NULL); /* it refuses all but sockets */
    if (address == NULL) {
        return NULL;
    }
    void *handle = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    if (handle == NULL && !PyErr_Occurred()) {
        set_error(ENOTSOCK);
    }
    return handle;
}

static int
events_of(void *handle, int *events)
{
    size_t size = sizeof *events;
    while (get_option(handle, EVENTS, events, &size) < 0) {
        if (!is_interrupted()) {
            if (!PyErr_Occurred()) {
                set_error(last_error());
            }
            return -1;
        }
    }
    return 0;
}

static PyObject *
has_input(PyObject *Py_UNUSED(module), PyObject *socket)
{
    int events;
    void *handle = handle_of(socket);
    if (handle == NULL || events_of(handle, &events) < 0) {
        return NULL;
    }
    return PyBool_FromLong(events & POLL_IN);
}

/* --- sending --- */

/* Send a copy of a frame. */
static int
send_copy(void *handle, const Py_buffer *view, int flags)
{
    Frame frame;
    if (msg_init_size(&frame, (size_t)view->len) < 0) {
        set_error(last_error());
        return -1;
    }
    memcpy(msg_data(&frame), view->buf, (size_t)view->len);
    while (msg_send(&frame, handle, flags) < 0) {
        if (!is_interrupted()) {
            int number = last_error();
            msg_close(&frame);
            if (!PyErr_Occurred()) {
                set_error(number);
            }
            return -1;
        }
    }
    return 0;
}

/* Send one frame, a large one through pyzmq. `*handle` is NULL where it has to be asked for (again). */
static int
send_frame(PyObject *socket, void **handle, PyObject *part, int flags)
{
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (view.len >= LARGE_BYTES) {
        PyBuffer_Release(&view);
        PyObject *result = PyObject_CallMethod(socket, "send", "OiO", part, flags, Py_False);
        Py_XDECREF(result);
        *handle = NULL; /* other code ran */
        return result == NULL ? -1 : 0;
    }
    if (*handle == NULL) {
        *handle = handle_of(socket);
    }
    int failed = *handle == NULL || send_copy(*handle, &view, flags) < 0;
    PyBuffer_Release(&view);
    return failed ? -1 : 0;
}

static PyObject *
send_message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "send takes a socket and frames");
        return NULL;
    }
    PyObject *socket = args[0], *frames = PySequence_Tuple(args[1]);
    if (frames == NULL) {
        return NULL;
    }
    Py_ssize_t last = PyTuple_GET_SIZE(frames) - 1;
    void *handle = NULL;
    int failed = last < 0;
    if (failed) {
        PyErr_SetString(PyExc_ValueError, "a message has at least one frame");
    }
    for (Py_ssize_t at = 0; !failed && at <= last; at++) {
        PyObject *part = PyTuple_GET_ITEM(frames, at);
        int flags = at < last ? DONTWAIT | SEND_MORE : DONTWAIT;
        failed = send_frame(socket, &handle, part, flags) < 0;
        if (failed && at == 0 && PyErr_ExceptionMatches(again_type)) {
            /* libzmq looks only once a millisecond whether the receiver has made room, unless it is asked. */
            PyErr_Clear();
            int events;
            failed = (handle = handle_of(socket)) == NULL || events_of(handle, &events) < 0 ||
                     send_frame(socket, &handle, part, flags) < 0;
        }
    }
    Py_DECREF(frames);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- receiving --- */

/* What `receive` was called with. */
typedef struct {
    PyObject *socket, *accepts, *origins; /* the last two may be NULL */
    long most;
    int of_one;
} Wanted;

static int
parse(PyObject *const *args, Py_ssize_t count, PyObject *names, Wanted *wanted)
{
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "receive takes a socket, a number, and perhaps `accepts` by position");
        return -1;
    }
    *wanted = (Wanted){.socket = args[0], .most = PyLong_AsLong(args[1]), .accepts = count == 3 ? args[2] : NULL};
    if (wanted->most == -1 && PyErr_Occurred()) {
        return -1;
    }
    for (Py_ssize_t at = 0; names != NULL && at < PyTuple_GET_SIZE(names); at++) {
        PyObject *name = PyTuple_GET_ITEM(names, at), *value = args[count + at];
        if (PyUnicode_Compare(name, in_accepts) == 0 && wanted->accepts == NULL) {
            wanted->accepts = value;
        }
        else if (PyUnicode_Compare(name, in_origins) == 0) {
            wanted->origins = value;
        }
        else if (PyUnicode_Compare(name, in_of_one) == 0) {
            wanted->of_one = PyObject_IsTrue(value);
        }
        else if (PyUnicode_Compare(name, in_expecting) != 0) { /* the call that finds nothing is cheap here */
            PyErr_Format(PyExc_TypeError, "receive has no keyword argument %R", name);
        }
    }
    if (wanted->accepts == Py_None) {
        wanted->accepts = NULL;
    }
    if (wanted->origins == Py_None) {
        wanted->origins = NULL;
    }
    if (wanted->origins != NULL && !PyList_Check(wanted->origins)) {
        PyErr_SetString(PyExc_TypeError, "origins is a list");
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Receive one frame: 1, or 0 if there is none, or -1 with an exception. */
static int
receive_frame(void *handle, Frame *frame)
{
    while (msg_recv(frame, handle, DONTWAIT) < 0) {
        if (last_error() == EAGAIN) {
            return 0;
        }
        if (!is_interrupted()) {
            if (!PyErr_Occurred()) {
                set_error(last_error());
            }
            return -1;
        }
    }
    return 1;
}

/* Return a frame's bytes; a large one is copied without the GIL, so that other threads go on. */
static PyObject *
bytes_of(Frame *frame)
{
    size_t size = msg_size(frame);
    if (size < LARGE_BYTES) {
        return PyBytes_FromStringAndSize(msg_data(frame), (Py_ssize_t)size);
    }
    PyObject *part = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (part != NULL) {
        char *place = PyBytes_AS_STRING(part);
        Py_BEGIN_ALLOW_THREADS
        memcpy(place, msg_data(frame), size);
        Py_END_ALLOW_THREADS
    }
    return part;
}

/* Receive the frames of one message, the last of them in `frame`: 1, or 0 if none has come, or -1.

   An XPUB takes each frame that begins with 0 or 1 for a subscription, also the last frame of a message. No further
   frame of that message will come: `is_cut` is set. */
static int
receive_parts(void *handle, Frame *frame, PyObject *parts, Py_ssize_t *size, int *is_cut)
{
    int came = receive_frame(handle, frame);
    if (came <= 0) {
        return came;
    }
    for (;;) {
        PyObject *part = bytes_of(frame);
        int failed = part == NULL || PyList_Append(parts, part) < 0;
        Py_XDECREF(part);
        if (failed) {
            return -1;
        }
        *size += (Py_ssize_t)msg_size(frame);
        if (!msg_more(frame)) {
            return 1;
        }
        came = receive_frame(handle, frame);
        if (came < 0) {
            return -1;
        }
        if (came == 0) {
            *is_cut = 1;
            return 1;
        }
    }
}

/* Return the name that the ZAP handler gave a connection, empty without one. */
static PyObject *
name_of(const Frame *frame)
{
    const char *name = msg_gets(frame, "User-Id");
    return name == NULL ? Py_NewRef(empty_text) : PyUnicode_FromString(name);
}

/* Return True if a connection's name is accepted. */
static int
is_accepted(PyObject *accepts, PyObject *name)
{
    if (PyUnicode_GET_LENGTH(name) == 0) {
        return 0;
    }
    PyObject *verdict = PyObject_CallOneArg(accepts, name);
    int is_true = verdict == NULL ? -1 : PyObject_IsTrue(verdict);
    Py_XDECREF(verdict);
    return is_true;
}

static int
append_origin(PyObject *origins, const Frame *frame, PyObject *name)
{
    PyObject *origin = Py_BuildValue("(iO)", msg_get(frame, SOURCE_DESCRIPTOR), name);
    int failed = origin == NULL || PyList_Append(origins, origin) < 0;
    Py_XDECREF(origin);
    return failed ? -1 : 0;
}

/* Keep a message that has come: 1, or 0 if none shall follow it, or -1. */
static int
keep(const Wanted *wanted, PyObject *messages, PyObject *parts, const Frame *frame, Py_ssize_t size, int is_cut)
{
    PyObject *name = wanted->accepts == NULL ? Py_NewRef(empty_text) : name_of(frame);
    if (name == NULL) {
        return -1;
    }
    int verdict = wanted->accepts == NULL ? 1 : is_accepted(wanted->accepts, name);
    if (verdict > 0 && (PyList_Append(messages, parts) < 0 ||
                        (wanted->origins != NULL && append_origin(wanted->origins, frame, name) < 0))) {
        verdict = -1;
    }
    Py_DECREF(name);
    if (verdict < 0 || is_cut) {
        return verdict < 0 ? -1 : 0;
    }
    if (verdict > 0 && wanted->of_one) {
        PyObject *first = PyList_GET_ITEM(PyList_GET_ITEM(messages, 0), 0);
        int is_same = PyObject_RichCompareBool(PyList_GET_ITEM(parts, 0), first, Py_EQ);
        return is_same < 0 ? -1 : is_same && size < LARGE_BYTES;
    }
    return 1;
}

/* Receive one message into `messages`: 1, or 0 if none has come or none shall follow, or -1. */
static int
take(const Wanted *wanted, void *handle, PyObject *messages)
{
    PyObject *parts = PyList_New(0);
    if (parts == NULL) {
        return -1;
    }
    Frame frame;
    Py_ssize_t size = 0;
    int is_cut = 0;
    msg_init(&frame);
    int goes_on = receive_parts(handle, &frame, parts, &size, &is_cut);
    if (goes_on > 0) {
        goes_on = keep(wanted, messages, parts, &frame, size, is_cut);
    }
    msg_close(&frame);
    Py_DECREF(parts);
    return goes_on;
}

static PyObject *
receive(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Wanted wanted;
    if (parse(args, count, names, &wanted) < 0) {
        return NULL;
    }
    PyObject *messages = PyList_New(0);
    int goes_on = messages == NULL ? -1 : 1;
    void *handle = NULL;
    for (long taken = 0; goes_on > 0 && taken < wanted.most; taken++) {
        if (taken == 0 || wanted.accepts != NULL) { /* `accepts` may have closed the socket */
            handle = handle_of(wanted.socket);
        }
        goes_on = handle == NULL ? -1 : take(&wanted, handle, messages);
    }
    if (goes_on < 0) {
        Py_CLEAR(messages);
    }
    return messages;
}

static PyMethodDef functions[] = {
    {"use_libzmq", use_libzmq, METH_VARARGS, "Take ZeroMQ from the library that pyzmq has loaded."},
    {"send", (PyCFunction)(void (*)(void))send_message, METH_FASTCALL, "Send one message without waiting."},
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL | METH_KEYWORDS,
     "Return up to so many messages that have arrived."},
    {"has_input", has_input, METH_O, "Return True if a message waits."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_frames",
    .m_doc = "Frames in C; compiled.py loads this module.",
    .m_size = -1, /* what it looked up is the process's: no subinterpreter has its own */
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__frames(void)
{
    const struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&in_accepts, "accepts"}, {&in_expecting, "expecting"}, {&in_of_one, "of_one"},
        {&in_origins, "origins"}, {&empty_text, ""},
    };
    for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
        if (*names[at].place == NULL && (*names[at].place = PyUnicode_InternFromString(names[at].text)) == NULL) {
            return NULL;
        }
    }
    return PyModule_Create(&module);
}
