// The pages of firmware and rollouts, in one script.

export { FirmwarePage } from "./firmware";
export { ReleasePage } from "./release";
export { RolloutPage } from "./rollout";
export { RolloutsPage } from "./rollouts";
