/** The program of the utility process: a client over ZeroMQ for each window that has sent a port. */

import { serveWindows } from "./serve-windows";

serveWindows(process.parentPort);
