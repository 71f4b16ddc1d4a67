import { describe, expect, it } from "vitest";
import { fileFault, gatewaysOf, policyPath, policyState, policyText } from "../policy";

describe("policy that is handed in", () => {
  it("is in force or refused by nothing but the gateway's word", () => {
    expect(policyState(200, { number: 7, epoch: 3, refused: null })).toEqual({ is: "in_force", block: 7, epoch: 3 });
    expect(policyState(422, { number: 7, epoch: 3, refused: "header_older" })).toEqual({ is: "refused", reason: "header_older" });
    expect(policyState(200, {}).is).toBe("not_there");
    expect(policyState(200, { number: 7, epoch: 3, refused: "header_older" }).is).toBe("not_there");
  });

  it("may be in force where it was sent and no word of the gateway came", () => {
    for (const status of [502, 504]) expect(policyState(status, { error: "the core did not answer" })).toEqual({ is: "unknown", why: "the core did not answer" });
    for (const status of [404, 413, 429, 503]) expect(policyState(status, { error: "no" })).toEqual({ is: "not_there", why: "no" });
    expect(policyState(503, null)).toEqual({ is: "not_there", why: "status 503" });
  });

  it("says in words what holds", () => {
    expect(policyText({ is: "in_force", block: 7, epoch: 3 }, "gateway-1")).toMatch(/^In force at gateway-1, .*block 7/);
    expect(policyText({ is: "refused", reason: "header_older" }, "gateway-1")).toMatch(/refuses it: header_older/);
    expect(policyText({ is: "not_there", why: "away" }, "gateway-1")).toMatch(/Nothing is kept/);
    expect(policyText({ is: "unknown", why: "lost" }, "gateway-1")).toMatch(/may be in force/);
  });

  it("is a file of the size that its kind has", () => {
    expect(fileFault("revocation", 0)).toMatch(/Choose/);
    expect(fileFault("revocation", 321)).toMatch(/at most 320/);
    expect(fileFault("bundle", 321)).toBeNull();
    expect(policyPath("bundle", "a&b")).toBe("/api/policy/bundle?gateway=a%26b");
  });

  it("goes to gateways that the feed names", () => {
    expect(gatewaysOf({ gateways: ["gateway-1", 2] })).toEqual(["gateway-1"]);
    for (const body of [null, {}, { gateways: "gateway-1" }]) expect(gatewaysOf(body)).toEqual([]);
  });
});
