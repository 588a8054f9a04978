/**
 * Checks the types of what a program wants to send, so that a mistake is a `TypeError` at its call.
 *
 * Ranges and names are left to the broker, which knows them: it answers with a `ValidationError`.
 */

import { FIELDS, REQUEST_DATA } from "../generated/protocol.js";
import { isMap, shown } from "./codec.js";
import { didYouMean } from "./near-miss.js";

const OF_REQUESTS: { readonly [requestType: string]: string } = REQUEST_DATA;
const OF_CONTRACTS: { readonly [contract: string]: { readonly [field: string]: string } } = FIELDS;
const LIST = "list of ";
const TEXTS: { readonly [kind: string]: string } = {
  text: "a text",
  number: "a number",
  flag: "true or false",
  map: "a plain object",
};

/**
 * Raises a `TypeError` unless `data` have the fields that a request of this type needs, each of its type. Fields that are
 * not known here pass: the broker may be newer.
 */
export function checkRequest(requestType: unknown, data: unknown): void {
  if (typeof requestType !== "string" || !Object.hasOwn(OF_REQUESTS, requestType)) {
    const near = typeof requestType === "string" ? didYouMean(requestType, Object.keys(OF_REQUESTS)) : "";
    throw new TypeError(`there is no request ${shown(requestType)}${near}`);
  }
  checkContract(OF_REQUESTS[requestType] as string, data, requestType);
}

function checkContract(contract: string, value: unknown, path: string): void {
  if (!isMap(value)) throw new TypeError(`${path}: expected a plain object; ${shown(value)} came`);
  const fields = OF_CONTRACTS[contract] ?? {};
  for (const [field, kind] of Object.entries(fields)) {
    const came = value[field];
    const where = `${path}.${field}`;
    if (came !== undefined && came !== null) {
      checkValue(kind.endsWith("?") ? kind.slice(0, -1) : kind, came, where);
    } else if (!kind.endsWith("?") && kind !== "any") {
      const wrongly = Object.keys(value).filter((name) => !Object.hasOwn(fields, name));
      const near = wrongly.find((name) => didYouMean(name, [field]) !== "");
      throw new TypeError(`${where}: required, and missing${near === undefined ? "" : `; ${near} is no field of it`}`);
    }
  }
}

function checkValue(kind: string, value: unknown, path: string): void {
  if (kind.startsWith(LIST)) {
    if (!Array.isArray(value)) throw new TypeError(`${path}: expected a list; ${shown(value)} came`);
    value.forEach((one: unknown, index) => {
      checkValue(kind.slice(LIST.length), one, `${path}[${index}]`);
    });
  } else if (Object.hasOwn(OF_CONTRACTS, kind)) {
    checkContract(kind, value, path);
  } else if (!isOfKind(kind, value)) {
    throw new TypeError(`${path}: expected ${TEXTS[kind] ?? kind}; ${shown(value)} came`);
  }
}

function isOfKind(kind: string, value: unknown): boolean {
  switch (kind) {
    case "text":
      return typeof value === "string";
    case "number":
      return typeof value === "number" && !Number.isNaN(value);
    case "flag":
      return typeof value === "boolean";
    case "map":
      return isMap(value);
    default:
      return true;
  }
}
